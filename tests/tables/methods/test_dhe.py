"""``dhe``: hashes of the id through a small network, and no table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from muxrec.tables.bags import bags_from_lists
from muxrec.tables.methods.dhe import DeepHash, HashCode

OPTIONS = {"hidden": 32, "hashes": 64}
FAR = torch.tensor([0, -1, 2**63 - 1, -(2**63), 2**31, 2**32, 10**15])


@pytest.fixture(scope="module")
def codes() -> Tensor:
    """Codes of 5,000 sequential ids by 64 hashes."""
    return HashCode("f", 64)(torch.arange(5_000))


def test_there_are_no_rows_and_no_reads(planted) -> None:
    lowered = DeepHash().lower(planted("dhe", OPTIONS).declared())
    assert not lowered.tables
    assert not lowered.reads
    assert not lowered.known


def test_codes_cover_the_range_evenly_without_negative_residues(codes: Tensor) -> None:
    """Published code multiplies in int32: products overflow and their remainders are negative."""
    bins = ((codes + 1) * 8).long()
    assert codes.min() >= -1
    assert codes.max() < 1
    # 320,000 codes in 16 equal bins: 20,000 each, with a standard deviation of 137.
    counts = torch.bincount(bins.flatten(), minlength=16).float()
    assert counts.numel() == 16
    assert (counts - 20_000).abs().max() < 5 * 137
    # Each hash alone: 5,000 codes have a mean of 0 +- 0.0082 and a variance of 1 / 3.
    assert codes.mean(dim=0).abs().max() < 5 * 0.0082
    torch.testing.assert_close(codes.var(dim=0), torch.full((64,), 1 / 3), rtol=0.1, atol=0)


def test_hashes_are_independent_of_each_other(codes: Tensor) -> None:
    correlations = torch.corrcoef(codes.T) - torch.eye(64)
    # 2,016 pairs of 5,000 codes: each 0 +- 0.014.
    assert correlations.abs().max() < 5.5 * 0.0142


def test_large_and_negative_ids_have_codes_like_any_other() -> None:
    found = HashCode("f", 512)(FAR)
    assert found.mean(dim=1).abs().max() < 5 * (1 / 3 / 512) ** 0.5
    distances = torch.cdist(found, found) + 100 * torch.eye(len(FAR))
    assert distances.min() > 10


def test_codes_are_exact_in_float32() -> None:
    found = HashCode("f", 256)(torch.arange(1_000)).double()
    assert torch.equal((found + 1) * 2**23, ((found + 1) * 2**23).round())


def test_an_id_has_one_vector_whatever_its_batch(planted, all_vectors) -> None:
    """The batch norm of published code makes it depend on the other ids, and breaks on one id."""
    given = planted("dhe", OPTIONS)
    tables = given.build()
    tables.train()
    together = all_vectors(tables, given)
    for index in (0, 17):
        alone = tables({"f0": bags_from_lists([[1000 + index]])})["f0"][0]
        # Products of other sizes may be summed in another order.
        torch.testing.assert_close(alone, together[index], rtol=0, atol=1e-6)


def test_a_repeated_id_trains_as_often_as_it_comes(planted) -> None:
    gradients = []
    for calls in ([[1, 1, 2]], [[1], [1], [2]]):
        module = DeepHash().lower(planted("dhe", OPTIONS).declared()).combines["f0"]
        for ids in calls:
            module(torch.empty(len(ids), 0), torch.tensor(ids), None).sum().backward()
        gradients.append(module.get_parameter("last.weight").grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)
    assert gradients[0].abs().max() > 0.1


def test_vectors_start_with_the_variance_of_declared_rows(planted, all_vectors) -> None:
    given = planted("dhe", {"hidden": 64, "hashes": 128}, sizes=(3_000,))
    square = all_vectors(given.build(), given).square().mean()
    # One draw of 512 last weights: their mean square varies by some six percent.
    assert 0.7 < float(square) / (given.table.init**2 / 3) < 1.4


@pytest.mark.parametrize("hidden", [1, 2])
def test_the_narrowest_networks_tell_ids_apart(planted, all_vectors, hidden: int) -> None:
    given = planted("dhe", {"hidden": hidden, "layers": 1, "hashes": 8})
    assert len(all_vectors(given.build(), given).unique(dim=0)) >= 2


def test_unseen_ids_have_vectors(planted) -> None:
    tables = planted("dhe", OPTIONS).build()
    found = tables({"f0": bags_from_lists([[i] for i in FAR.tolist()])})["f0"]
    assert found.isfinite().all()
    assert len(found.unique(dim=0)) == len(FAR)


def test_it_learns(planted, train_planted) -> None:
    trained = train_planted(planted("dhe", {"hidden": 64, "hashes": 128}))
    assert trained.error < 0.6 * trained.first_error
