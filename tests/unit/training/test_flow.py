"""The flow-matching loss: what it weighs, and what it teaches."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from careedit.editing import EditorBase
from careedit.errors import CareEditError
from careedit.tiny.family import MAX_SEQUENCE_LENGTH, build_pipeline
from careedit.training import pool as pool_module
from careedit.training.flow import Locator, edited_tokens, flow_loss
from careedit.training.items import edit_item
from careedit.training.pool import build_pool, load_pool


@pytest.fixture(scope="module")
def base() -> EditorBase:
    """An untrained base."""
    return EditorBase.from_pipeline(build_pipeline(["remove the red circle"]), max_sequence_length=MAX_SEQUENCE_LENGTH)


@pytest.fixture(scope="module")
def pool(base: EditorBase, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Four removals."""
    folder = tmp_path_factory.mktemp("pool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_module, "SHARD", 4)
        build_pool("erase", partial(edit_item, "erase"), 4, base, folder)
    return dict(load_pool("erase", folder))


def loss_of(base: EditorBase, pool: dict[str, Tensor], locator: Locator | None = None) -> Tensor:
    return flow_loss(base, pool, torch.arange(4), torch.Generator().manual_seed(1), locator)


def test_the_loss_is_a_finite_number_that_depends_on_the_generator_alone(
    base: EditorBase, pool: dict[str, Tensor]
) -> None:
    first, again = loss_of(base, pool), loss_of(base, pool)
    other = flow_loss(base, pool, torch.arange(4), torch.Generator().manual_seed(2))
    assert torch.isfinite(first)
    assert first.item() == again.item() != other.item()


def test_a_token_counts_as_edited_where_the_target_differs_from_the_source() -> None:
    clean = torch.randn(1, 8, 16, 32, generator=torch.Generator().manual_seed(0))
    clean[..., 16:] = clean[..., :16]
    assert edited_tokens(clean).sum() == 0
    clean[:, :, 4:6, 20:22] += 1
    edited = edited_tokens(clean).view(8, 16)
    assert edited.nonzero().tolist() == [[2, 10]]


def test_the_third_panel_is_compared_with_the_second() -> None:
    clean = torch.zeros(1, 8, 16, 48)
    clean[..., :16] = 1
    assert edited_tokens(clean).sum() == 0


def test_the_locator_adds_to_the_loss_and_teaches_the_transformer(base: EditorBase, pool: dict[str, Tensor]) -> None:
    plain = loss_of(base, pool)
    locator = Locator(base.transformer)
    located = loss_of(base, pool, locator)
    assert located > plain
    located.backward()  # type: ignore[no-untyped-call]
    assert locator.probe.weight.grad is not None
    assert bool(locator.probe.weight.grad.any())


def test_a_locator_without_a_forward_pass_says_so(base: EditorBase) -> None:
    locator = Locator(base.transformer)
    with pytest.raises(CareEditError, match="no forward pass"):
        locator(torch.zeros(1, 4, 1), torch.ones(1, 4, 1))
