"""The token layout is diffusers' own."""

import pytest
import torch
from diffusers import FluxFillPipeline

from careedit.editing.latents import pack, pack_mask, position_ids, token_coverage, unpack

SIZES = [(16, 32), (18, 54), (2, 2)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_packing_is_the_pipelines(height, width):
    latents = torch.randn(2, 8, height, width)

    assert torch.equal(pack(latents), FluxFillPipeline._pack_latents(latents, 2, 8, height, width))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_unpacking_undoes_packing(height, width):
    latents = torch.randn(2, 8, height, width)

    assert torch.equal(unpack(pack(latents), height, width), latents)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_positions_are_the_pipelines(height, width):
    expected = FluxFillPipeline._prepare_latent_image_ids(1, height // 2, width // 2, "cpu", torch.float32)

    assert torch.equal(position_ids(height, width), expected)


def test_a_packed_mask_keeps_every_pixel():
    mask = (torch.rand(1, 1, 32, 48) > 0.5).float()

    packed = pack_mask(mask, 4)

    assert packed.shape == (1, 4 * 6, 64)
    assert packed.sum() == mask.sum()


def test_coverage_is_the_share_of_a_tokens_free_pixels():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8, :8] = 1  # the first token wholly
    mask[..., 8:12, 8:16] = 1  # the last token by half

    assert token_coverage(pack_mask(mask, 4)).flatten().tolist() == [1.0, 0.0, 0.0, 0.5]
