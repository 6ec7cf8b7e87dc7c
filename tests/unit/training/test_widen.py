"""A wider base begins as the narrower one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from careedit.cli.main import main
from careedit.editing import FluxFill
from careedit.editing.latents import position_ids
from careedit.errors import InputError
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH, build_transformer
from careedit_tiny.recipes.base.probe import PROBE_FILE, SceneProbe, scene_probe
from careedit_tiny.recipes.base.widen import narrow, widen, with_heads
from careedit_tiny.recipes.family import load_tiny_base

WEIGHTS = Path(__file__).parents[3] / "platform/careedit_tiny/weights/base"


@pytest.fixture(scope="module")
def base():
    """The trained one of the package."""
    return load_tiny_base(WEIGHTS)


def velocity(base: FluxFill) -> Tensor:
    """What a base says of drawn noise on two canvases."""
    config, generator = base.transformer.config, torch.Generator().manual_seed(0)
    with torch.inference_mode():
        said: Tensor = base.transformer(
            hidden_states=torch.randn(2, 128, config.in_channels, generator=generator),
            timestep=torch.tensor([0.3, 0.9]),
            encoder_hidden_states=torch.randn(2, MAX_SEQUENCE_LENGTH, config.joint_attention_dim, generator=generator),
            pooled_projections=torch.randn(2, config.pooled_projection_dim, generator=generator),
            img_ids=position_ids(16, 32),
            txt_ids=torch.zeros(MAX_SEQUENCE_LENGTH, 3),
            return_dict=False,
        )[0]
    return said


def test_a_widened_base_says_what_the_narrow_one_says(base):
    heads = base.transformer.config.num_attention_heads
    before = velocity(base)
    for more in (heads + 1, 2 * heads, 2 * heads + 1):
        wide = widen(base, more)
        assert wide.transformer.config.num_attention_heads == more
        assert wide.transformer.inner_dim == 64 * more
        difference = (velocity(wide) - before).square().mean().sqrt() / before.std()
        assert difference < 0.1, f"{more} heads"
    assert widen(base, heads + 1).vae is base.vae


def test_what_is_new_learns_from_the_first_step(base):
    wide = widen(base, base.transformer.config.num_attention_heads + 1)
    width = base.transformer.inner_dim
    with torch.enable_grad():
        wide.transformer.requires_grad_(True)
        out = wide.transformer(
            hidden_states=torch.randn(1, 128, wide.transformer.config.in_channels),
            timestep=torch.tensor([0.5]),
            encoder_hidden_states=torch.randn(1, 4, wide.transformer.config.joint_attention_dim),
            pooled_projections=torch.randn(1, wide.transformer.config.pooled_projection_dim),
            img_ids=position_ids(16, 32),
            txt_ids=torch.zeros(4, 3),
            return_dict=False,
        )[0]
        out.square().mean().backward()
    block = wide.transformer.single_transformer_blocks[0]
    assert wide.transformer.x_embedder.weight.grad[width:].abs().max() > 0
    assert block.proj_out.weight.grad[:width, width : wide.transformer.inner_dim].abs().max() > 0


def test_the_probe_of_a_narrow_base_reads_a_wide_one(base, tmp_path):
    torch.manual_seed(0)
    probe = SceneProbe(base.transformer)
    probe.detach()
    save_file(probe.state_dict(), tmp_path / PROBE_FILE)
    wide = widen(base, base.transformer.config.num_attention_heads + 1)
    grown = scene_probe(wide.transformer, tmp_path)
    grown.detach()
    width = base.transformer.inner_dim
    assert torch.equal(grown.given.weight[:, :width], probe.given.weight) and not grown.given.weight[:, width:].any()
    assert torch.equal(grown.target.bias, probe.target.bias)


def test_a_base_widened_and_narrowed_again_is_what_it_was(base):
    heads = base.transformer.config.num_attention_heads
    back = with_heads(with_heads(base, heads + 2), heads)
    for name, value in base.transformer.state_dict().items():
        assert torch.allclose(back.transformer.state_dict()[name], value, rtol=1e-5, atol=1e-7), name
    assert with_heads(base, heads) is base


def test_widening_needs_more_heads_and_narrowing_fewer(base):
    heads = base.transformer.config.num_attention_heads
    with pytest.raises(InputError, match="give more than that"):
        widen(base, heads)
    with pytest.raises(InputError, match="give fewer than that"):
        narrow(base, heads)


def test_heads_without_a_base_to_widen_are_refused(capsys):
    assert main(["train", "base", "--heads", "4"]) == 2
    assert "name it with --start" in capsys.readouterr().err


def test_an_untrained_transformer_keeps_its_guidance(base):
    guided = replace(base, transformer=build_transformer(guidance_embeds=True))
    wide = widen(guided, 5)
    assert wide.guidance == "embedded"
