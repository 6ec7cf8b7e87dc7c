"""Recipe of the editor's VAE: reconstruct drawn scenes, arranged as the canvases of the editor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from careedit.finetune.curve import check_curve, save_report
from careedit.finetune.loop import TrainConfig, TrainReport, train
from careedit.finetune.precision import products
from careedit_tiny.models.family import PANEL, VAE_CHANNELS, build_vae
from careedit_tiny.world.draw import draw_scene
from careedit_tiny.world.scene import LOOKS, random_scene

DEFAULT = TrainConfig(steps=6000, learning_rate=2e-3, ema=0.998, weight_decay=0.0, betas=(0.9, 0.99))
DECODER = DEFAULT
"""Settings of the decoder's own training."""
BATCH = 4
"""Canvases of two panels per step."""
KL_WEIGHT = 1e-6
"""Only keeps the latents near a unit normal; the flow's prior does the rest."""
LATENT_NOISE = 0.3
"""Largest standard deviation of the noise on latents, of unit spread, that the decoder learns to ignore: an edit's
latents are never exactly those of an image."""
TEST_SEED = 100_000_000
"""First seed of the panels that quality is measured on."""
POOL = 8000
"""Scenes drawn once and shown in changing pairs."""


def draw_panel(seed: int, side: int = PANEL) -> np.ndarray:
    """One training panel: a scene, under a global look three times in eight."""
    rng = Random(f"vae:{seed}")
    scene = random_scene(rng, minimum=0, maximum=5)
    if rng.random() < 0.375:
        keep = rng.randrange(len(scene.things)) if scene.things and rng.random() < 0.3 else None
        scene = replace(scene, look=rng.choice(LOOKS), keep=keep)
    return np.asarray(draw_scene(scene, side))


def draw_panels(first: int, count: int, side: int = PANEL) -> np.ndarray:
    """Panels of seeds from `first` on, [count, side, side, 3]."""
    return np.stack([draw_panel(seed, side) for seed in range(first, first + count)])


def to_pixels(panels: np.ndarray) -> Tensor:
    """[B, H, W, 3] bytes -> [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(panels).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(vae: AutoencoderKL, panels: np.ndarray) -> float:
    """Mean over pictures of the reconstruction's peak signal-to-noise ratio, in dB, on [B, H, W, 3] bytes."""
    with torch.inference_mode():
        values = []
        for chunk in torch.split(to_pixels(panels), 32):
            decoded = vae.decode(vae.encode(chunk).latent_dist.mode()).sample.clamp(-1, 1)
            error = ((decoded - chunk) / 2).square().mean(dim=(1, 2, 3))
            values.append(-10 * torch.log10(error))
    return float(torch.cat(values).mean())


def train_vae(
    folder: Path,
    config: TrainConfig = DEFAULT,
    *,
    pool: int = POOL,
    half: bool = False,
    start: AutoencoderKL | None = None,
) -> tuple[AutoencoderKL, TrainReport]:
    """Train, then measure the latents' mean and spread, which become `shift_factor` and `scaling_factor`.

    `half` trains a VAE of pictures half as wide; one of these as `start` becomes the inner levels of the new one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        vae = build_vae(half=half)
    if start is not None:
        grow(vae, start)
    panels = draw_panels(0, pool, PANEL // 2 if half else PANEL)

    def loss(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        canvas = _canvas(panels, generator)
        with products("cpu"):
            posterior = vae.encode(canvas).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator)
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        kl = posterior.kl().mean() / noise[0].numel()
        return {"loss": _distance(decoded, canvas) + KL_WEIGHT * kl}

    report = train("half" if half else "vae", list(vae.parameters()), loss, config, folder)
    vae.eval().requires_grad_(False)
    with torch.inference_mode():
        latents = torch.cat(
            [vae.encode(chunk).latent_dist.mode() for chunk in torch.split(to_pixels(panels[:512]), 64)]
        )
    cast(Any, vae).register_to_config(shift_factor=float(latents.mean()), scaling_factor=1 / float(latents.std()))
    return vae, report


def grow(vae: AutoencoderKL, half: AutoencoderKL) -> None:
    """Give `vae`, in place, the levels of a VAE of pictures half as wide; its outermost level stays as it is."""
    old = cast(Any, half).state_dict()
    last = len(VAE_CHANNELS) - 2
    state = {}
    for name, value in cast(Any, vae).state_dict().items():
        inner = re.sub(r"(encoder\.down_blocks\.)(\d+)", lambda m: f"{m[1]}{int(m[2]) - 1}", name)
        known = old.get(inner)
        outer = name.startswith(
            ("encoder.conv_in", "decoder.conv_out", "decoder.conv_norm_out", f"decoder.up_blocks.{last + 1}")
        )
        state[name] = value if outer or known is None or known.shape != value.shape else known
    cast(Any, vae).load_state_dict(state)


def train_decoder(vae: AutoencoderKL, folder: Path, config: TrainConfig = DECODER, *, pool: int = POOL) -> TrainReport:
    """Train the decoder on, in place, on latents that stay as they are: a base that was trained on them still fits."""
    panels = draw_panels(0, pool)
    model = cast(Any, vae)

    def loss(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        canvas = _canvas(panels, generator)
        strength = LATENT_NOISE / model.config.scaling_factor * torch.rand(BATCH, 1, 1, 1, generator=generator)
        with products("cpu"):
            with torch.no_grad():
                latents = vae.encode(canvas).latent_dist.mode().float()
            noise = torch.randn(latents.shape, generator=generator)
            decoded = vae.decode(latents + strength * noise).sample
        return {"loss": _distance(decoded, canvas)}

    vae.requires_grad_(False)
    model.decoder.requires_grad_(True)
    report = train("decoder", list(model.decoder.parameters()), loss, config, folder)
    vae.eval().requires_grad_(False)
    return report


def _canvas(panels: np.ndarray, generator: torch.Generator) -> Tensor:
    """[BATCH, 3, side, 2 side]: two panels side by side, the second now and then blank."""
    chosen = torch.randint(len(panels), (2 * BATCH,), generator=generator).numpy()
    pixels = to_pixels(panels[chosen])
    canvas = torch.cat([pixels[:BATCH], pixels[BATCH:]], dim=3)
    blank = torch.rand(BATCH, generator=generator) < 0.2
    canvas[blank, :, :, panels.shape[1] :] = 0.0
    return canvas


def _distance(decoded: Tensor, canvas: Tensor) -> Tensor:
    residual = decoded.float() - canvas
    return residual.abs().mean() + 4 * residual.square().mean()


def make_vae(folder: Path, config: TrainConfig = DEFAULT, *, pool: int = POOL) -> tuple[TrainReport, float]:
    """Train, and write weights and report to `folder`; returns the PSNR too, in dB, on 256 panels never trained on."""
    check_curve()
    vae, report = train_vae(folder, config, pool=pool)
    return report, _keep(vae, report, folder)


def make_decoder(
    folder: Path, vae: AutoencoderKL, config: TrainConfig = DECODER, *, pool: int = POOL
) -> tuple[TrainReport, float]:
    """Train the decoder of `vae` on, and write the VAE and a report to `folder`; returns its PSNR as `make_vae` does."""
    check_curve()
    report = train_decoder(vae, folder, config, pool=pool)
    return report, _keep(vae, report, folder)


def _keep(vae: AutoencoderKL, report: TrainReport, folder: Path) -> float:
    """Write weights and report under the report's name; returns the PSNR in dB on 256 panels never trained on."""
    cast(Any, vae).save_pretrained(folder / report.name)
    save_report(report, folder / f"{report.name}.json")
    return psnr(vae, draw_panels(TEST_SEED, 256))
