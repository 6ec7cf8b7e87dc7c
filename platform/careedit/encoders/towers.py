"""Tokens in the joint space, from the towers of any open_clip model.

CLIP projects only its pooled states into the space that pictures and text share. The same projection, put on every
token instead, gives patches and words that can be compared (MaskCLIP, Zhou et al. 2022, section 3.2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from careedit.errors import ExpertError


def patch_states(visual: nn.Module, pixels: Tensor, width: int) -> Tensor:
    """Projected patch tokens [B, Nv, width] of normalised pixels [B, 3, H, W], without the class token.

    `width` is the joint space's. Raises `ExpertError` for a tower whose tokens have no way into it.
    """
    tower: Any = visual
    if hasattr(tower, "attnpool"):  # ModifiedResNet: the pooling's value and output projections, as MaskCLIP does
        grid = tower.forward_intermediates(pixels, indices=1, intermediates_only=True)["image_intermediates"][-1]
        return _checked(tower.attnpool.c_proj(tower.attnpool.v_proj(grid.flatten(2).transpose(1, 2))), width)
    found = tower.forward_intermediates(
        pixels, indices=1, normalize_intermediates=True, intermediates_only=True, output_fmt="NLC"
    )
    states: Tensor = found["image_intermediates"][-1]
    if hasattr(tower, "trunk"):  # a timm trunk: its own head (SigLIP: none), or open_clip's
        head = tower.head if len(tower.head) else getattr(tower.trunk, "head", None)
        return _checked(head(states) if isinstance(head, nn.Module) else states, width)
    return _checked(_project(states, tower.proj), width)


def word_states(model: nn.Module, ids: Tensor, width: int) -> Tensor:
    """Projected text tokens [B, L, width] of token ids [B, L]; what stands at padding means nothing."""
    owner: Any = model
    text = getattr(owner, "text", None)
    if text is not None and not hasattr(text, "forward_intermediates"):  # a Hugging Face encoder
        mask = (ids != text.config.pad_token_id).long()
        return _checked(text.proj(text.transformer(input_ids=ids, attention_mask=mask).last_hidden_state), width)
    asked: dict[str, Any] = {"normalize_intermediates": True, "intermediates_only": True}
    if text is None:
        found = owner.forward_intermediates(text=ids, text_indices=1, **asked)
    else:
        found = text.forward_intermediates(ids, indices=1, output_fmt="NLC", **asked)
    return _checked(_project(found["text_intermediates"][-1], (text or owner).text_projection), width)


def _project(states: Tensor, projection: Tensor | nn.Module | None) -> Tensor:
    if projection is None:
        return states
    return torch.as_tensor(projection(states)) if isinstance(projection, nn.Module) else states @ projection


def _checked(states: Tensor, width: int) -> Tensor:
    if states.ndim != 3 or states.shape[-1] != width:
        raise ExpertError(
            f"The encoder's tokens have {states.shape[-1]} channels where its joint space has {width}, and there is no "
            "projection between the two; choose an open_clip model with a transformer tower, such as ViT-L-14."
        )
    return states
