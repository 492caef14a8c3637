"""Dropout of ids and modalities."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from muxrec.towers.hiding import hide_modalities


@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_the_last_visible_modality_is_never_hidden(
    seed: int, id_dropout: float, modality_dropout: float, has_id: bool
) -> None:
    torch.manual_seed(seed)
    present = torch.rand(64, 4) > 0.5
    visible = hide_modalities(
        present,
        id_at=3 if has_id else None,
        id_dropout=id_dropout,
        modality_dropout=modality_dropout,
    )
    assert torch.equal(visible.any(dim=1), present.any(dim=1))
    assert not (visible & ~present).any()
    assert (present.sum(1) - visible.sum(1)).max() <= 2


def test_ids_are_hidden_as_often_as_asked() -> None:
    torch.manual_seed(0)
    present = torch.ones(20_000, 3, dtype=torch.bool)
    visible = hide_modalities(present, id_at=2, id_dropout=0.3, modality_dropout=0.0)
    assert visible[:, :2].all()
    # Six standard errors of a share over 20,000 draws: 6 * sqrt(0.3 * 0.7 / 20000) = 0.0195.
    assert abs((~visible[:, 2]).float().mean() - 0.3) < 0.0195


def test_content_modalities_are_hidden_evenly_and_one_at_a_time() -> None:
    torch.manual_seed(0)
    present = torch.ones(30_000, 3, dtype=torch.bool)
    visible = hide_modalities(present, id_at=None, id_dropout=1.0, modality_dropout=0.6)
    assert (~visible).sum(dim=1).max() == 1
    # Six standard errors: 6 * sqrt(0.2 * 0.8 / 30000) = 0.0139.
    assert ((~visible).float().mean(dim=0) - 0.2).abs().max() < 0.0139


def test_an_item_that_has_only_its_id_keeps_it() -> None:
    present = torch.tensor([[False, True]]).expand(100, 2)
    assert hide_modalities(present, id_at=1, id_dropout=1.0, modality_dropout=1.0)[:, 1].all()
