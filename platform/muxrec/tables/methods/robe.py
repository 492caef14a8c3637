"""``robe``: pieces of every vector lie anywhere in one flat array that all features share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from muxrec.errors import RecipeError
from muxrec.spec.features import FeatureSpec
from muxrec.spec.hashing import MAX_ROWS, probe_seed
from muxrec.tables.hash_torch import finish_hashes, hash_rows, mix_ids, reduce_to_rows
from muxrec.tables.methods.addresses import Address
from muxrec.tables.methods.protocol import Declared, Lowered, Method, Read
from muxrec.tables.methods.seeds import seeds_on
from muxrec_kernels.compositional_lookup import robe_lookup

if TYPE_CHECKING:
    from muxrec.tables.addressing import Found


class RandomBlocks(Method):
    """A vector is pieces of ``block`` numbers; each begins at any number of the array.

    The array is held as rows of ``block`` numbers, so that it is sharded, trained and quantised
    like every other. A piece that begins inside row q is cut from rows q and q + 1; after the last
    row comes the first. Every number of the array is a parameter and nothing else is.
    """

    title = "pieces of vectors anywhere in one flat array shared by many features"
    source = "Desai et al., MLSys 2022"

    def lower(self, declared: Declared) -> Lowered:
        """One array of the declared rows, ``block`` wide; two reads per piece.

        Raises:
            RecipeError: The array has 2 ** 31 numbers or more, beyond the range of the hash.
        """
        rows, block = declared.table.rows or 1, declared.whole("block")
        if rows * block >= MAX_ROWS:
            raise RecipeError(
                f"tables.{declared.table.name}: {rows} rows of {block} numbers are {rows * block}, "
                "a robe array must have fewer than 2**31: lower rows or budget"
            )
        name = declared.table.name
        reads = (
            Read(reader.name, 2 * at + after, name, PieceAddress(seed, block, is_next=bool(after)))
            for reader in declared.readers
            for at, seed in enumerate(_seeds(declared, reader))
            for after in (0, 1)
        )
        return Lowered(
            (declared.physical(name, rows, block),),
            tuple(reads),
            widths={reader.name: declared.table.width for reader in declared.readers},
            combines={
                reader.name: Pieces(_seeds(declared, reader), rows, block, declared.table.width)
                for reader in declared.readers
            },
            per_id=frozenset(reader.name for reader in declared.readers),
        )


def _seeds(declared: Declared, reader: FeatureSpec) -> list[int]:
    """Seed of each piece of the reader's vectors."""
    pieces = -(-declared.table.width // declared.whole("block"))
    return [probe_seed(reader.name, piece) for piece in range(pieces)]


class PieceAddress(Address):
    """The row of ``block`` numbers in which a piece begins, or the one after it.

    Args:
        seed: Signed 64-bit seed of the piece.
        block: Numbers per row.
        is_next: Whether the row after it is meant.
    """

    def __init__(self, seed: int, block: int, *, is_next: bool) -> None:
        super().__init__()
        self.seed, self.block, self.is_next = seed, block, is_next

    @property
    def fingerprint(self) -> str:
        """Seed, block and which row."""
        return f"piece {self.seed} {self.block} {int(self.is_next)}"

    def forward(self, ids: Tensor, index: Tensor | None, size: int) -> Tensor:  # noqa: ARG002
        """Rows in ``[0, size)``."""
        start = hash_rows(ids, self.seed, size * self.block)
        row = torch.div(start, self.block, rounding_mode="trunc")
        if not self.is_next:
            return row
        return torch.where(row == size - 1, 0, row + 1)


class Pieces(nn.Module):
    """Cuts each piece from its two rows, turns its sign by the hash, and joins the pieces.

    Args:
        seeds: Seed of each piece.
        rows: Rows of the array.
        block: Numbers per row and per piece.
        width: Numbers per vector; what the last piece has beyond it is not used.
    """

    def __init__(self, seeds: list[int], rows: int, block: int, width: int) -> None:
        super().__init__()
        self.seeds, self.numbers, self.block, self.width = seeds, rows * block, block, width

    def forward(self, rows: Tensor, ids: Tensor, index: Tensor | None) -> Tensor:  # noqa: ARG002
        """Pairs of rows side by side ``[N, pieces * 2 * block]`` to vectors ``[N, width]``."""
        seeds = torch.tensor(self.seeds, device=ids.device)
        hashes = finish_hashes(mix_ids(ids)[:, None], seeds)
        start = reduce_to_rows(hashes, self.numbers)
        shift = start - torch.div(start, self.block, rounding_mode="trunc") * self.block
        # The place is in the hash's upper half; the lowest bit is independent of it.
        sign = (1 - 2 * (hashes & 1)).to(rows.dtype)
        places = shift[:, :, None] + torch.arange(self.block, device=ids.device)
        pieces = rows.unflatten(1, (len(self.seeds), 2 * self.block)).gather(2, places)
        return (pieces * sign[:, :, None]).flatten(1)[:, : self.width]

    def in_one_pass(self, tables: Sequence[Tensor], found: Found, *, pooling: str) -> Tensor:
        """Joined pieces, pooled ``[B, width]``; the array is given."""
        (array,) = tables
        return robe_lookup(
            array,
            found.ids,
            found.offsets,
            seeds_on(array.device, tuple(self.seeds)),
            width=self.width,
            weights=found.weights,
            pooling=pooling,
        )
