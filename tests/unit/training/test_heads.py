"""Which object the words mean, and the head that is taught to see it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from careedit.editing import FluxFill
from careedit.finetune.flow import flow_loss
from careedit.finetune.pool import build_pool, load_pool
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH
from careedit_tiny.recipes.base.heads import TaughtHeads, meant_objects, source_tokens
from careedit_tiny.recipes.base.items import edit_item
from careedit_tiny.recipes.base.labels import ATTRIBUTES, GRID, canvas_labels
from careedit_tiny.recipes.base.words import WORD_ATTRIBUTES, WordProbe
from careedit_tiny.world.samples import draw_sample


def canvas(operation: str, index: int = 0) -> tuple[Tensor, Tensor, str]:
    """Labels [1, attributes, T], edited tokens [1, T] by the labels, and the shape that the instruction names first."""
    sample = draw_sample(operation, index)
    labels = torch.from_numpy(canvas_labels((sample.source, sample.target)))[None]
    pair = labels.view(1, len(ATTRIBUTES), GRID, 2, GRID)
    edited = torch.zeros(1, GRID, 2, GRID, dtype=torch.bool)
    edited[:, :, 1] = (pair[:, :, :, 0] != pair[:, :, :, 1]).any(dim=1)
    return labels, edited.flatten(1), sample.slots["x"].split()[-1]


def shapes_of(labels: Tensor, chosen: Tensor) -> set[str]:
    """Shapes that these source tokens show."""
    return {ATTRIBUTES["shape"][i] for i in labels[0, 0, source_tokens(labels.shape[-1])][chosen[0]].tolist()}


@pytest.mark.parametrize("operation", ["remove.thing", "replace.thing", "attribute.colour", "attribute.size"])
def test_the_changed_object_is_meant(operation):
    for index in range(8):
        labels, edited, named = canvas(operation, index)
        shown, meant = meant_objects(labels, edited, torch.tensor([False]))
        assert shapes_of(labels, shown & meant) == {named}


def test_where_an_object_is_to_be_kept_it_is_the_unchanged_one():
    sample = draw_sample("identity.look", 0)
    assert sample.source.keep is not None or sample.target.keep is not None
    labels, edited, named = canvas("identity.look")
    shown, meant = meant_objects(labels, edited, torch.tensor([True]))
    assert named in shapes_of(labels, shown & meant)


def test_the_source_is_the_panel_before_the_last():
    assert source_tokens(2 * GRID * GRID)[:9].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 16]
    assert source_tokens(3 * GRID * GRID)[:9].tolist() == [8, 9, 10, 11, 12, 13, 14, 15, 32]


@pytest.fixture(scope="module")
def base(corpus_pipeline):
    return FluxFill.from_pipeline(corpus_pipeline, max_sequence_length=MAX_SEQUENCE_LENGTH)


def test_the_heads_learn_from_the_loss(base, tmp_path):
    build_pool("erase", partial(edit_item, "erase"), 4, base, tmp_path, shard_size=4)
    pool = load_pool("erase", tmp_path)
    probe = WordProbe(base.text_encoder_2)
    # A probe that takes every word for {x}: enough for a loss.
    with torch.no_grad():
        probe.weight.zero_()
        probe.bias.zero_()
        probe.bias[len(WORD_ATTRIBUTES["operation"]) + WORD_ATTRIBUTES["slot"].index("x")] = 1.0
    heads = TaughtHeads(base.transformer, probe)
    seen: list[Tensor] = []

    def teach(*arguments: Tensor) -> Tensor:
        seen.append(heads(*arguments))
        return seen[-1]

    before = flow_loss(base, pool, torch.arange(4), torch.Generator().manual_seed(0))
    after = flow_loss(base, pool, torch.arange(4), torch.Generator().manual_seed(0), auxiliary=[teach])
    after.backward()
    attention = base.transformer.single_transformer_blocks[0].attn
    assert torch.allclose(after - before, seen[0], atol=1e-3)
    assert attention.to_q.weight.grad.norm() > 0
    assert base.transformer.transformer_blocks[0].attn.to_q.weight.grad.norm() > 0
    heads.detach()
    base.transformer.zero_grad()
    assert not attention._forward_pre_hooks
