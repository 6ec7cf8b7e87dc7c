"""The flow-matching loss of the in-context fill model, on items of a pool.

x_s = (1 - s) x_1 + s x_0 with the model's velocity target x_0 - x_1 (rectified flow, arXiv 2209.03003, as FLUX's scheduler
integrates it). x_0 is noise e, as in FLUX, or c e + x', where x' is the canvas whose target panel shows the source: a bridge
from source to target (latent bridge matching, arXiv 2503.07535), which contains from the start what the edit keeps.
s = sigmoid(u), u ~ `SIGMA[start]`: shifted towards s = 1, where the edit decides what it changes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from careedit.editing import Family, FluxFill, Start
from careedit.editing.latents import pack, pack_mask, position_ids, token_coverage
from careedit.errors import CareEditError
from careedit.finetune.precision import products

SIGMA: Mapping[Start, tuple[float, float]] = {"noise": (0.5, 1.3), "source": (2.0, 1.5)}
"""Mean and standard deviation of u for each start."""
GIVEN_WEIGHT = 0.05
"""Loss weight of given tokens. They only have to stay the same."""
EDIT_WEIGHT = 4.0
"""Loss weight of free tokens in which target and source differ. Most of a canvas is copied, which is learned early."""
EDIT_THRESHOLD = 0.3
"""Root mean square difference of a token's latents (of unit variance) from which it counts as edited."""

AuxiliaryLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(text tokens [B, L, d], the pool's "labels" [B, A, T], edited tokens [B, T, 1]) -> a weighted loss term, a scalar."""


def encode_text(base: FluxFill, t5_ids: Tensor, clip_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token embeddings [B, L, d] and pooled embedding [B, d_p], as diffusers' pipeline makes them."""
    tokens = base.text_encoder_2(t5_ids, output_hidden_states=False)[0]
    return tokens, base.text_encoder(clip_ids, output_hidden_states=False).pooler_output


def flow_loss(
    base: FluxFill,
    pool: Mapping[str, Tensor],
    chosen: Tensor,
    generator: torch.Generator,
    *,
    auxiliary: Sequence[AuxiliaryLoss] = (),
    panels: int | None = None,
    start: Start = "noise",
    noise_scale: float = 1.0,
) -> Tensor:
    """The mean squared velocity error on items `chosen` (indices, [B]) of a pool; a scalar.

    `panels` is the number of panels per canvas; it is needed if panels are not square. A base that takes guidance learns at
    scale 1, as ICEdit's training does. With `start="source"` the pool needs "start"; raises `CareEditError` without. `auxiliary` terms are added; they need a pool with "labels". Noise comes from the
    generator, on the CPU, and is the same on every device.
    """
    device = base.device
    batch = {key: values[chosen].to(device) for key, values in pool.items()}
    clean, given = batch["clean"].float(), batch["given"].float()
    height, width = clean.shape[-2:]
    mask = pack_mask(batch["mask"].float(), scale=batch["mask"].shape[-1] // width)
    noise = torch.randn(clean.shape, generator=generator).to(device)
    mean, spread = SIGMA[start]
    sigma = torch.sigmoid(torch.randn(len(chosen), generator=generator) * spread + mean).to(device)
    first = noise * noise_scale
    if start == "source":
        if "start" not in batch:
            raise CareEditError("This training data has no latents to start from; delete it, and it is made again.")
        first = first + batch["start"].float()
    noisy = torch.lerp(clean, first, sigma[:, None, None, None])
    with forward_context(base):
        tokens, pooled = encode_text(base, batch["t5"].long(), batch["clip"].long())
        velocity = base.transformer(
            hidden_states=torch.cat([pack(noisy), pack(given), mask], dim=2),
            timestep=sigma,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            guidance=torch.ones(len(chosen), device=device) if base.guidance == "embedded" else None,
            img_ids=position_ids(height, width).to(device),
            txt_ids=torch.zeros(tokens.shape[1], 3, device=device),
            return_dict=False,
        )[0]
    error = (velocity.float() - pack(first - clean)).square().mean(dim=2, keepdim=True)
    edited, free = edited_tokens(clean, panels), (token_coverage(mask) > 0).float()
    loss = weighted_mean(error, edited, free)
    for term in auxiliary:
        loss = loss + term(tokens, batch["labels"], edited)
    return loss


@contextmanager
def forward_context(base: Family) -> Iterator[None]:
    """The number format and the attention kernel in which training runs a base."""
    # At 150 tokens the plain attention's backward pass takes two thirds of the fused one's time on a CPU.
    # Checkpointed blocks are computed a second time in the backward pass, outside this context, with equal results.
    plain = base.device.type == "cpu" and not cast(Any, base.transformer).is_gradient_checkpointing
    attention = sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()
    with products(base.device, base.dtype), attention, warnings.catch_warnings():
        # The query and key norms keep float32 weights under autocast; torch warns once that this is not its fused path.
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
        yield


def weighted_mean(error: Tensor, edited: Tensor, free: Tensor) -> Tensor:
    """The mean of the tokens' errors, weighted by what the tokens are, a scalar. All are [B, T, 1].

    `edited` is 1 where the target differs from the source, `free` is above 0 where the mask marks the edit.
    """
    weight = torch.where(free > 0, 1 + (EDIT_WEIGHT - 1) * edited, GIVEN_WEIGHT)
    return (error * weight).sum() / weight.sum()


def differing(difference: Tensor) -> Tensor:
    """1 for tokens whose latents differ by more than `EDIT_THRESHOLD`, else 0: tokens [B, T, C] to [B, T, 1]."""
    return (difference.square().mean(dim=2, keepdim=True).sqrt() > EDIT_THRESHOLD).float()


def edited_tokens(clean: Tensor, panels: int | None = None) -> Tensor:
    """1 for tokens in which the target panel, the last one, differs from the panel before it, else 0: [B, T, 1].

    `clean` are the canvas's latents [B, C, h, w]. Panels are square if their number is not given.
    """
    difference = clean - source_canvas(clean, panels)
    return differing(pack(difference))


def source_canvas(clean: Tensor, panels: int | None = None) -> Tensor:
    """Latents [B, C, h, w] of the canvases `clean`, in which the last panel shows the source, the panel before it."""
    panel = clean.shape[-2] if panels is None else clean.shape[-1] // panels
    canvas = clean.clone()
    canvas[..., -panel:] = clean[..., -2 * panel : -panel]
    return canvas
