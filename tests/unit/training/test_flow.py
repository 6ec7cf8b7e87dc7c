"""The flow-matching loss: what it weighs, and what it teaches."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from PIL import Image
from torch import Tensor

from careedit.editing import FluxFill
from careedit.editing.cache import EncodingCache
from careedit.editing.job import EditJob
from careedit.editing.latents import pack
from careedit.errors import CareEditError
from careedit.finetune import pool as pool_module
from careedit.finetune.flow import edited_tokens, flow_loss
from careedit.finetune.pool import Item, build_pool, load_pool
from careedit.images import canvas_mask
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH, PANEL, build_pipeline
from careedit_tiny.recipes.base.items import edit_item
from careedit_tiny.recipes.base.labels import UNKNOWN
from careedit_tiny.recipes.base.probe import SceneProbe


@pytest.fixture(scope="module")
def base():
    """An untrained base."""
    return FluxFill.from_pipeline(build_pipeline(["remove the red circle"]), max_sequence_length=MAX_SEQUENCE_LENGTH)


@pytest.fixture(scope="module")
def pool(base, tmp_path_factory):
    """Four removals."""
    folder = tmp_path_factory.mktemp("pool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_module, "SHARD", 4)
        build_pool("erase", partial(edit_item, "erase"), 4, base, folder)
    return dict(load_pool("erase", folder))


def loss_of(base: FluxFill, pool: dict[str, Tensor], probe: SceneProbe | None = None) -> Tensor:
    return flow_loss(
        base, pool, torch.arange(4), torch.Generator().manual_seed(1), auxiliary=[] if probe is None else [probe.term]
    )


def test_the_loss_is_a_finite_number_that_depends_on_the_generator_alone(base, pool):
    first, again = loss_of(base, pool), loss_of(base, pool)
    other = flow_loss(base, pool, torch.arange(4), torch.Generator().manual_seed(2))
    assert torch.isfinite(first)
    assert first.item() == again.item() != other.item()


def test_a_token_counts_as_edited_where_the_target_differs_from_the_source():
    clean = torch.randn(1, 8, 16, 32, generator=torch.Generator().manual_seed(0))
    clean[..., 16:] = clean[..., :16]
    assert edited_tokens(clean).sum() == 0
    clean[:, :, 4:6, 20:22] += 1
    edited = edited_tokens(clean).view(8, 16)
    assert edited.nonzero().tolist() == [[2, 10]]


def test_the_third_panel_is_compared_with_the_second():
    clean = torch.zeros(1, 8, 16, 48)
    clean[..., :16] = 1
    assert edited_tokens(clean).sum() == 0


def test_from_the_source_what_the_edit_keeps_has_nothing_to_learn_but_the_noise(base, pool, monkeypatch):
    clean = pool["clean"].float()
    # a transformer that predicts nothing is wrong by the velocity itself: start - clean
    monkeypatch.setattr(
        base.transformer, "forward", lambda hidden_states, **_: (torch.zeros_like(hidden_states[..., :32]),)
    )
    loss = partial(flow_loss, base, {**pool, "clean": clean, "start": clean}, torch.arange(4))
    drawn = {
        scale: loss(torch.Generator().manual_seed(1), start="source", noise_scale=scale).item() for scale in (0.5, 0.25)
    }
    assert drawn[0.5] == pytest.approx(4 * drawn[0.25])
    assert loss(torch.Generator().manual_seed(1), noise_scale=0.25).item() > drawn[0.25]
    with pytest.raises(CareEditError, match="no latents to start from"):
        flow_loss(base, pool, torch.arange(4), torch.Generator(), start="source")


def test_what_an_edit_starts_from_is_what_training_starts_from_and_does_not_depend_on_the_target(base, tmp_path):
    source, *targets = (Image.new("RGB", (PANEL, PANEL), colour) for colour in ("gray", "red", "navy"))
    mask = canvas_mask(2, (PANEL, PANEL), None)
    build_pool(
        "two", lambda i: Item.of_panels([source, targets[i]], mask, f"prompt {i}"), 2, base, tmp_path, start="source"
    )
    made = load_pool("two", tmp_path)
    assert torch.equal(made["start"][0], made["start"][1])
    left = made["clean"][..., : made["clean"].shape[-2]]
    assert not torch.equal(left[0], left[1]), (
        "a VAE sees the whole canvas, so this is why the start is encoded by itself"
    )
    job = EditJob(source=source, instruction="x", seed=0, steps=2, start="source", noise_scale=1.0)
    encoded = base.encode(job, EncodingCache())
    torch.testing.assert_close(encoded.pictures[2], pack(made["start"][:1].float()), atol=0.05, rtol=0.0)


def test_the_probe_adds_to_the_loss_and_teaches_the_transformer(base, pool):
    plain = loss_of(base, pool)
    probe = SceneProbe(base.transformer)
    probed = loss_of(base, pool, probe)
    probe.detach()
    assert probed > plain
    probed.backward()  # type: ignore[no-untyped-call]
    for part in (probe.given, probe.target):
        assert part.weight.grad is not None
        assert bool(part.weight.grad.any())


def test_a_probe_without_a_forward_pass_says_so(base):
    probe = SceneProbe(base.transformer)
    probe.detach()
    with pytest.raises(CareEditError, match="no forward pass"):
        probe(torch.zeros(1, 8, 128, dtype=torch.uint8), torch.ones(1, 128, 1))


def test_the_target_panel_has_a_probe_of_its_own(base, pool):
    probe = SceneProbe(base.transformer)
    loss_of(base, pool, probe)
    probe.detach()
    labels, edited = pool["labels"].clone(), torch.zeros(4, 128, 1)
    grid = torch.arange(128) % 16 >= 8
    labels[:, :, ~grid] = UNKNOWN  # only the target panel is asked for
    probe(labels, edited).backward()
    assert probe.given.weight.grad is None or not bool(probe.given.weight.grad.any())
    assert probe.target.weight.grad is not None
    assert bool(probe.target.weight.grad.any())
