"""The flow-matching loss of the in-context fill model, on items of a pool.

x_s = (1 - s) x_1 + s e with the model's velocity target e - x_1 (rectified flow, arXiv 2209.03003, as FLUX's scheduler
integrates it); s = sigmoid(u), u ~ N(1, 1.2): shifted towards noise, where it is decided what the edit changes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, cast

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from careedit.editing import EditorBase
from careedit.editing.latents import pack, pack_mask, position_ids, token_coverage
from careedit.errors import CareEditError

GIVEN_WEIGHT = 0.05
"""Loss weight of tokens that are given: they only have to stay; all the work is in the free ones."""


EDIT_WEIGHT = 4.0
"""Loss weight of free tokens in which target and source differ: most of a canvas is copied, and copying is learned early."""
EDIT_THRESHOLD = 0.3
"""Root mean square difference of a token's latents, of unit spread, from which it counts as edited."""


LOCATION_WEIGHT = 0.2
"""Weight of the locating loss."""


class Locator(nn.Module):
    """A linear probe that says, from the transformer's last hidden states, which tokens the edit changes.

    Only training uses it: to find the object that the words name is the hard part of an edit, and the velocity's error
    says little about it.
    """

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        super().__init__()
        width = cast(Any, transformer).inner_dim
        self.probe = nn.Linear(width, 1)
        self._hidden: Tensor | None = None
        # `norm_out` is the last module that sees the tokens before they become velocities.
        self._hook = transformer.norm_out.register_forward_pre_hook(self._remember)

    def detach(self) -> None:
        """Take the probe off the transformer."""
        self._hook.remove()

    def _remember(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._hidden = inputs[0]

    def forward(self, edited: Tensor, free: Tensor) -> Tensor:
        """Binary cross-entropy over the free tokens; `edited` and `free` are [B, T, 1] of 0 and 1."""
        if self._hidden is None:
            raise CareEditError("The locator has seen no forward pass of the transformer; run it first.")
        loss = functional.binary_cross_entropy_with_logits(self.probe(self._hidden.float()), edited, reduction="none")
        return (loss * free).sum() / free.sum()


def encode_text(base: EditorBase, t5_ids: Tensor, clip_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token embeddings [B, L, d] and pooled embedding [B, d_p], as the stock pipeline makes them."""
    tokens = base.text_encoder_2(t5_ids, output_hidden_states=False)[0]
    return tokens, base.text_encoder(clip_ids, output_hidden_states=False).pooler_output


def flow_loss(
    base: EditorBase,
    pool: Mapping[str, Tensor],
    chosen: Tensor,
    generator: torch.Generator,
    locator: Locator | None = None,
) -> Tensor:
    """The mean squared velocity error on items `chosen` (indices, [B]) of a pool; a scalar."""
    batch = {key: values[chosen] for key, values in pool.items()}
    clean, given = batch["clean"].float(), batch["given"].float()
    height, width = clean.shape[-2:]
    mask = pack_mask(batch["mask"].float(), scale=batch["mask"].shape[-1] // width)
    noise = torch.randn(clean.shape, generator=generator)
    sigma = torch.sigmoid(torch.randn(len(chosen), generator=generator) * 1.2 + 1.0)
    noisy = torch.lerp(clean, noise, sigma[:, None, None, None])
    # At 150 tokens the plain attention's backward pass takes two thirds of the fused one's time on a CPU.
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        # The query and key norms keep float32 weights under autocast; torch says once that this is not its fused path.
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        tokens, pooled = encode_text(base, batch["t5"].long(), batch["clip"].long())
        velocity = base.transformer(
            hidden_states=torch.cat([pack(noisy), pack(given), mask], dim=2),
            timestep=sigma,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            img_ids=position_ids(height, width),
            txt_ids=torch.zeros(tokens.shape[1], 3),
            return_dict=False,
        )[0]
    error = (velocity.float() - pack(noise - clean)).square().mean(dim=2, keepdim=True)
    edited, free = edited_tokens(clean), (token_coverage(mask) > 0).float()
    weight = torch.where(free > 0, 1 + (EDIT_WEIGHT - 1) * edited, GIVEN_WEIGHT)
    loss: Tensor = (error * weight).sum() / weight.sum()
    return loss if locator is None else loss + LOCATION_WEIGHT * locator(edited, free)


def edited_tokens(clean: Tensor) -> Tensor:
    """1 where the target panel, the last of the canvas, differs from the panel before it, else 0: [B, T, 1].

    `clean` are the canvas's latents [B, C, h, w] of square panels.
    """
    panel = clean.shape[-2]
    difference = torch.zeros_like(clean)
    difference[..., -panel:] = clean[..., -panel:] - clean[..., -2 * panel : -panel]
    return (pack(difference).square().mean(dim=2, keepdim=True).sqrt() > EDIT_THRESHOLD).float()
