"""FLUX's token layout: a latent picture as a sequence of 2x2 patches, in diffusers' channel order.

Shapes: B batch, C latent channels, h x w latent pixels, T = h/2 * w/2 tokens, s pixels per latent pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pack(latents: Tensor) -> Tensor:
    """[B, C, h, w] to tokens [B, T, 4C]; h and w must be even."""
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, (height // 2) * (width // 2), channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens [B, T, 4C] to [B, C, h, w], where `height` and `width` count latent pixels."""
    batch, _, channels = tokens.shape
    patches = tokens.view(batch, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(batch, channels // 4, height, width)


def pack_mask(mask: Tensor, scale: int) -> Tensor:
    """A pixel mask [B, 1, s*h, s*w] to tokens [B, T, 4*s*s]: every pixel is kept, as FLUX.1-Fill was trained."""
    batch, _, height, width = mask.shape
    pixels = mask[:, 0].view(batch, height // scale, scale, width // scale, scale).permute(0, 2, 4, 1, 3)
    return pack(pixels.reshape(batch, scale * scale, height // scale, width // scale))


def token_coverage(packed_mask: Tensor) -> Tensor:
    """The share of each token's pixels that are free, 0 to 1: [B, T, 4*s*s] to [B, T, 1]."""
    return packed_mask.float().mean(dim=-1, keepdim=True)


def position_ids(height: int, width: int) -> Tensor:
    """Rotary positions [T, 3] of a canvas of `height` x `width` latent pixels: (0, row, column) per token."""
    rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    return torch.stack((torch.zeros_like(rows), rows, columns), dim=-1).reshape(-1, 3).float()
