"""What the compositional lookups are checked and timed on, against the same in torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from muxrec_kernels import compositional_lookup
from muxrec_kernels.bench.case import Case, Check, Run
from muxrec_kernels.bench.inputs import SETS, draw_ids, draw_lengths, offsets_of
from muxrec_kernels.compositional_lookup import reference
from muxrec_kernels.testing import norm_ratio, poisoned_outputs
from muxrec_kernels.xxhash64 import hash_rows

LENGTH, SHORT = 20, 3
BATCHES = (65_536, 2_048)
TARGETS = {"quotient_remainder": {"two EmbeddingBags": 2.0}, "codebook": {"decode then pool": 3.0}}
SEEDS = (3, -5, 2**63 - 1, -(2**63), 17)
POOLED = {"weights": None, "pooling": "sum"}

Bags = tuple[Tensor, Tensor]
Look = Callable[[Bags], Tensor]


@dataclass(frozen=True)
class Form:
    """One lookup with its arrays.

    Attributes:
        name: ``quotient_remainder``, ``multi_hash``, ``codebook`` or ``robe``.
        size: What a case's name says of it.
        before: Arguments before the arrays.
        arrays: Floating-point arrays, which have gradients.
        after: Arguments behind the bags.
        options: Named arguments.
        ids: Ids are drawn below this.
        id_bytes: Bytes that an id reads, by the traffic model.
        row_bytes: Bytes of the rows gathered; 0 where they come from a cache.
        peers: Name -> the same in torch, given bags.
    """

    name: str
    size: str
    before: tuple[Tensor, ...]
    arrays: tuple[Tensor, ...]
    after: tuple[Tensor, ...]
    options: Mapping[str, Any]
    ids: int
    id_bytes: int
    row_bytes: int = 0
    peers: Mapping[str, Look] = field(default_factory=dict)

    def run(self, module: Any, arrays: tuple[Tensor, ...], bags: Bags) -> Tensor:
        """The lookup of the public module, or of the reference."""
        given = {} if module is reference else {"backend": "triton"}
        look = getattr(module, f"{self.name}_lookup")
        return look(*self.before, *arrays, *bags, *self.after, **self.options, **POOLED, **given)


def checks(device: torch.device, *, small: bool) -> Iterator[Check]:
    """Outputs and gradients of every form against the reference in float64."""
    lengths = draw_lengths(5 if small else 3000, length=3 if small else "jagged", seed=1)
    for form in _forms(device, small=True):
        count = int(lengths.sum())
        ids = draw_ids(count, distinct=form.ids, kind="zipf-1.05", seed=2, device=device)
        bags = ids, offsets_of(lengths, device)
        with poisoned_outputs():
            found = _step(form, compositional_lookup, form.arrays, bags)
        exact = _step(form, reference, tuple(array.double() for array in form.arrays), bags)
        ratio = max(norm_ratio(a, b) for a, b in zip(found, exact, strict=True))
        # Gradients leave in the arrays' dtype: one rounding to 11 bits for fp16.
        tolerance = 1e-6 if form.arrays[0].dtype == torch.float32 else 1e-3
        yield Check(f"{form.name}, {form.size}", ratio, tolerance)


def cases(device: torch.device, *, small: bool) -> Iterator[Case]:
    """Every form with a large and a small batch, and a training step of the first one."""
    batches = (4,) if small else BATCHES
    for form in _forms(device, small=small):
        for batch in batches:
            yield _case(form, batch, device, small=small)
        if form.name == "quotient_remainder":
            yield _training_case(form, batches[0], device, small=small)


def _case(form: Form, batch: int, device: torch.device, *, small: bool) -> Case:
    length = SHORT if small else LENGTH
    sets = [_bags(form, batch, length, "uniform", seed, device) for seed in range(SETS)]
    looks: dict[str, Look] = {
        "muxrec": lambda bags: form.run(compositional_lookup, form.arrays, bags)
    }
    looks |= form.peers
    absent = {}
    if small:
        absent["torch.compile"] = "it compiles for a device"
    else:
        compiled: Any = torch.compile(getattr(reference, f"{form.name}_lookup"))
        given = {**form.options, **POOLED}
        looks["torch.compile"] = lambda bags: compiled(
            *(*form.before, *form.arrays, *bags, *form.after), **given
        )
    count = batch * length
    width = looks["muxrec"](sets[0]).shape[1]
    return Case(
        name=f"{form.name}, {form.size}, {length} ids, uniform, batch {batch}",
        run={name: _bound(look, sets) for name, look in looks.items()},
        bytes_moved=count * form.id_bytes + batch * (8 + 4 * width),
        row_bytes=form.row_bytes,
        lookups=count,
        again=lambda: _step(form, compositional_lookup, form.arrays, sets[0]),
        targets=TARGETS.get(form.name, {}) if batch == max(BATCHES) else {},
        is_small=batch == min(BATCHES),
        absent=absent,
        peak_bytes=batch == max(BATCHES),
    )


def _training_case(form: Form, batch: int, device: torch.device, *, small: bool) -> Case:
    """Forward and gradients of popular ids, whose rows have long runs."""
    length = SHORT if small else LENGTH
    sets = [_bags(form, batch, length, "zipf-1.2", seed, device) for seed in range(SETS)]

    def theirs(bags: Bags) -> tuple[Tensor, ...]:
        quotients, remainders = (array.detach().requires_grad_() for array in form.arrays)
        out = _two_bags(quotients, remainders, bags)
        return out.detach(), *torch.autograd.grad(out, (quotients, remainders), _direction(out))

    count, row = batch * length, form.arrays[0].shape[1] * form.arrays[0].element_size()
    return Case(
        name=f"{form.name} forward and backward, {form.size}, {length} ids, zipf 1.2, "
        f"batch {batch}",
        run={
            "muxrec": lambda at: _step(form, compositional_lookup, form.arrays, sets[at]),
            "two EmbeddingBags": lambda at: theirs(sets[at]),
        },
        # Besides the forward: two sorts of keys and numbers, both rows and the gradient twice.
        bytes_moved=count * (form.id_bytes + 2 * (64 + 2 * row)),
        lookups=count,
        absent={"torch.compile": "its backward would scatter with atomics"},
        peak_bytes=not small,
    )


def _bags(form: Form, batch: int, length: int, kind: str, seed: int, device: torch.device) -> Bags:
    lengths = draw_lengths(batch, length=length, seed=seed)
    ids = draw_ids(batch * length, distinct=form.ids, kind=kind, seed=seed, device=device)
    return ids, offsets_of(lengths, device)


def _bound(look: Look, sets: list[Bags]) -> Run:
    def call(at: int) -> Tensor:
        with torch.no_grad():
            return look(sets[at])

    return call


def _step(form: Form, module: Any, arrays: tuple[Tensor, ...], bags: Bags) -> tuple[Tensor, ...]:
    """Output and the arrays' gradients, dense where they are compared."""
    leaves = tuple(array.detach().requires_grad_() for array in arrays)
    out = form.run(module, leaves, bags)
    gradients = torch.autograd.grad(out, leaves, _direction(out))
    is_compared = max(array.numel() for array in arrays) < 2**24
    return out.detach(), *(
        each.to_dense() if is_compared else each.coalesce().values() for each in gradients
    )


def _direction(out: Tensor) -> Tensor:
    """An outer gradient that differs from number to number, so that a swap shows."""
    numbers = torch.linspace(0.1, 1.0, out.numel(), dtype=out.dtype, device=out.device)
    return numbers.view(out.shape)


def _forms(device: torch.device, *, small: bool) -> Iterator[Form]:
    """The forms, those with a target first; the next one's arrays are drawn when it is asked for.

    ``small`` has arrays that the interpreter and a float64 copy can bear.
    """

    def draw(rows: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator(device).manual_seed(width)
        return torch.randn(rows, width, generator=generator, device=device, dtype=dtype)

    yield _pairs(draw(*((40, 16) if small else (10_000, 64))))
    yield _codes(draw(8 * 4 if small else 16 * 256, 8, torch.float16), 8 if small else 16, small)
    yield _hashes(*((draw(99, 16), draw(50, 4)) if small else (draw(10**7, 64), draw(10**7, 4))))
    for block in (16, 32):
        yield _pieces(draw(37 if small else 2**30 // block, block))


def _pairs(quotients: Tensor) -> Form:
    rows, width = quotients.shape
    remainders = quotients.flip(0).contiguous()
    return Form(
        "quotient_remainder",
        f"fp32 D {width}, two of {rows} rows",
        before=(),
        arrays=(quotients, remainders),
        after=(),
        options={"combine": "multiply"},
        ids=rows * rows,
        # Both arrays fit the second cache; what it gives is counted as if memory gave it.
        id_bytes=8 + 2 * 4 * width,
        peers={"two EmbeddingBags": lambda bags: _two_bags(quotients, remainders, bags)},
    )


def _two_bags(quotients: Tensor, remainders: Tensor, bags: Bags) -> Tensor:
    """A bag for each id, their products, and the bags of these: a sum of products is no product."""
    index, offsets = bags
    each = torch.arange(index.numel() + 1, device=index.device)
    high = torch.div(index, remainders.shape[0], rounding_mode="trunc")
    first = _pooled(high, quotients, each)
    second = _pooled(index - high * remainders.shape[0], remainders, each)
    return _pooled(each[:-1], first * second, offsets)


def _pooled(rows: Tensor, table: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    return F.embedding_bag(
        rows, table, offsets, mode="sum", include_last_offset=True, per_sample_weights=weights
    )


def _codes(codebook: Tensor, parts: int, small: bool) -> Form:
    ids, entries = 200 if small else 10**7, codebook.shape[0] // parts
    generator = torch.Generator(codebook.device).manual_seed(7)
    codes = torch.randint(
        entries, (ids, parts), generator=generator, device=codebook.device, dtype=torch.uint8
    )
    first = torch.arange(parts, device=codebook.device) * entries

    def decoded(bags: Bags) -> Tensor:
        rows = F.embedding(codes[bags[0]].long() + first, codebook).flatten(1).float()
        return _pooled(torch.arange(len(rows), device=rows.device), rows, bags[1])

    return Form(
        "codebook",
        f"fp16 D {parts * codebook.shape[1]}, {parts} codes, {ids} ids",
        before=(codes,),
        arrays=(codebook,),
        after=(),
        options={},
        ids=ids,
        # A sector of codes; the codebook stays on chip.
        id_bytes=8 + max(32, parts),
        peers={"decode then pool": decoded},
    )


def _hashes(pool: Tensor, factors: Tensor) -> Form:
    hashes, width = factors.shape[1], pool.shape[1]
    seeds = torch.tensor(SEEDS[: hashes + 1], device=pool.device)

    def weighted_bag(bags: Bags) -> Tensor:
        rows = hash_rows(bags[0][:, None], seeds[:-1], len(pool)).flatten()
        own = F.embedding(hash_rows(bags[0], seeds[-1], len(factors)), factors).flatten()
        return _pooled(rows, pool, bags[1] * hashes, own)

    return Form(
        "multi_hash",
        f"fp32 D {width}, {hashes} of {len(pool)} rows",
        before=(),
        arrays=(pool, factors),
        after=(seeds,),
        options={},
        ids=10**9,
        id_bytes=8 + 4 * hashes * width + 32,
        row_bytes=4 * width,
        peers={"weighted EmbeddingBag": weighted_bag},
    )


def _pieces(array: Tensor) -> Form:
    block, width = array.shape[1], 64
    seeds = torch.tensor(SEEDS[: width // block], device=array.device)
    after, options = (seeds,), {"width": width}

    def gathered(bags: Bags) -> Tensor:
        return reference.robe_lookup(array, *bags, seeds, width=width, **POOLED)

    return Form(
        "robe",
        f"fp32 D {width}, block {block}, {array.numel()} numbers",
        before=(),
        arrays=(array,),
        after=after,
        options=options,
        ids=10**9,
        # A piece that begins anywhere touches a sector of 32 bytes more than it fills.
        id_bytes=8 + (width // block) * (4 * block + 28),
        row_bytes=4 * block,
        peers={"gather then pool": gathered},
    )
