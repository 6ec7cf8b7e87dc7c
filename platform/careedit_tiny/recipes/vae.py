"""Recipe of the editor's VAE: reconstruct drawn scenes, arranged as the canvases of the editor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from careedit.finetune.curve import check_curve, save_report
from careedit.finetune.drawing import in_order
from careedit.finetune.loop import TrainConfig, TrainReport, train
from careedit.finetune.precision import products, training_device
from careedit_tiny.models.family import LATENT_CHANNELS, PANEL, VAE_CHANNELS, build_vae
from careedit_tiny.world.draw import draw_scene
from careedit_tiny.world.scene import LOOKS, random_scene

DEFAULT = TrainConfig(steps=5000, learning_rate=1e-3, ema=0.998, weight_decay=0.0, betas=(0.9, 0.99))
HALF = replace(DEFAULT, steps=6000, learning_rate=2e-3)
"""Settings of the inner levels' own training, on pictures half as wide: a step costs a third of a whole one's."""
DECODER = replace(DEFAULT, steps=2000)
"""Settings of the decoder's own training."""
DETAIL_WEIGHT = 3.0
"""Additional weight of pixels that differ from the mean around them."""
BATCH = 4
"""Canvases of two panels per step."""
KL_WEIGHT = 1e-6
"""Only keeps the latents near a unit normal; the flow's prior does the rest."""
LATENT_NOISE = 0.3
"""Largest standard deviation of the noise on latents, of unit spread, that the decoder learns to ignore: an edit's
latents are never exactly those of an image."""
TEST_SEED = 100_000_000
"""First seed of the panels that quality is measured on."""
DRAWN_TOGETHER = 500
"""Panels that a process draws at a time."""
POOL = 16_000
"""Scenes drawn once and shown in changing pairs."""


def draw_panel(seed: int, side: int = PANEL) -> np.ndarray:
    """One training panel: a scene, under a global look three times in eight."""
    rng = Random(f"vae:{seed}")
    scene = random_scene(rng, minimum=0, maximum=5)
    if rng.random() < 0.375:
        keep = rng.randrange(len(scene.things)) if scene.things and rng.random() < 0.3 else None
        scene = replace(scene, look=rng.choice(LOOKS), keep=keep)
    return np.asarray(draw_scene(scene, side))


@lru_cache(maxsize=1)
def draw_panels(first: int, count: int, side: int = PANEL) -> np.ndarray:
    """Panels of seeds from `first` on, [count, side, side, 3]; the caller must not change them."""
    seeds = range(first, first + count)
    groups = [seeds[i : i + DRAWN_TOGETHER] for i in range(0, count, DRAWN_TOGETHER)]
    return np.stack([panel for made in in_order(partial(draw_panel, side=side), groups) for panel in made])


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
    start_certain(vae)
    panels = draw_panels(0, pool, PANEL // 2 if half else PANEL)
    if start is not None:
        grow(vae, start, panels[:64])
    cast(Any, vae).to(training_device())

    def loss(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        canvas = _canvas(panels, BATCH * config.batches, generator).to(vae.device)
        with products(vae.device):
            posterior = vae.encode(canvas).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(vae.device)
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        kl = posterior.kl().mean() / noise[0].numel()
        return {"loss": _distance(decoded, canvas) + KL_WEIGHT * kl}

    report = train("half" if half else "vae", list(vae.parameters()), loss, config, folder)
    vae.cpu().eval().requires_grad_(False)
    with torch.inference_mode():
        latents = torch.cat(
            [vae.encode(chunk).latent_dist.mode() for chunk in torch.split(to_pixels(panels[:512]), 64)]
        )
    cast(Any, vae).register_to_config(shift_factor=float(latents.mean()), scaling_factor=1 / float(latents.std()))
    return vae, report


def start_certain(vae: AutoencoderKL) -> None:
    """Let the encoder begin with a posterior of spread 0.02: at its usual 1 the first latents drown in their own noise."""
    last = cast(Any, vae).encoder.conv_out
    with torch.no_grad():
        last.weight[LATENT_CHANNELS:].zero_()
        last.bias[LATENT_CHANNELS:].fill_(-8.0)


def grow(vae: AutoencoderKL, half: AutoencoderKL, panels: np.ndarray) -> None:
    """Give `vae`, in place, the levels of a VAE of pictures half as wide, and an outermost level that changes little.

    The new level passes its features on and halves them as the old first layer would see the halved picture: fitted by least
    squares on `panels` (bytes, [B, H, W, 3]). Latent channels that only `vae` has begin small.
    """
    new, old = cast(Any, vae), cast(Any, half)
    state, inner = new.state_dict(), old.state_dict()
    for name, value in state.items():
        known = inner.get(re.sub(r"(encoder\.down_blocks\.)(\d+)", lambda m: f"{m[1]}{int(m[2]) - 1}", name))
        if name.startswith("encoder.conv_in") or known is None:
            continue
        if name.startswith("encoder.conv_out"):
            channels = len(known) // 2
            value[:LATENT_CHANNELS] *= 0.1
            value[:channels] = known[:channels]
        elif name == "decoder.conv_in.weight":
            value[:, known.shape[1] :] *= 0.1
            value[:, : known.shape[1]] = known
        elif known.shape == value.shape:
            value.copy_(known)
    last = len(VAE_CHANNELS) - 1
    for name in ("encoder.down_blocks.0.resnets.0", *(f"decoder.up_blocks.{last}.resnets.{i}" for i in range(2))):
        state[f"{name}.conv2.weight"].zero_()
        state[f"{name}.conv2.bias"].zero_()
    up = state[f"decoder.up_blocks.{last - 1}.upsamplers.0.conv.weight"]
    up.zero_()
    up[range(len(up)), range(len(up)), 1, 1] = 1
    state[f"decoder.up_blocks.{last - 1}.upsamplers.0.conv.bias"].zero_()
    _pass_colours(state["encoder.conv_in.weight"])
    state["encoder.conv_in.bias"].zero_()
    new.load_state_dict(state)
    down = new.encoder.down_blocks[0].downsamplers[0].conv
    with torch.no_grad():
        pixels = to_pixels(panels)
        seen = functional.pad(new.encoder.conv_in(pixels), (0, 1, 0, 1))
        patches = functional.unfold(seen, 3, stride=2).mT.flatten(0, 1)
        wanted = old.encoder.conv_in(functional.avg_pool2d(pixels, 2)).flatten(2).mT.flatten(0, 1)
        columns = torch.cat([patches, torch.ones(len(patches), 1)], dim=1).double()
        ridge = 1e-4 * len(columns) * torch.eye(columns.shape[1], dtype=torch.float64)
        fitted = torch.linalg.solve(columns.T @ columns + ridge, columns.T @ wanted.double()).float()
        down.weight.copy_(fitted[:-1].T.reshape(down.weight.shape))
        down.bias.copy_(fitted[-1])


def _pass_colours(weight: Tensor) -> None:
    """Filters [channels, 3, 3, 3] that keep a pixel's colours, its neighbours' and their differences."""
    weight *= 0.1
    filters = ([(1, 1, 1.0)], [(1, 0, 0.5), (1, 2, 0.5)], [(0, 1, 0.5), (2, 1, 0.5)], [(1, 0, -0.5), (1, 2, 0.5)], [(0, 1, -0.5), (2, 1, 0.5)])  # fmt: skip
    for i, taps in enumerate(filters):
        for colour in range(3):
            if 3 * i + colour < len(weight):
                weight[3 * i + colour] = 0
                for row, column, value in taps:
                    weight[3 * i + colour, colour, row, column] = value


def train_decoder(vae: AutoencoderKL, folder: Path, config: TrainConfig = DECODER, *, pool: int = POOL) -> TrainReport:
    """Train the decoder on, in place, on latents that stay as they are: a base that was trained on them still fits."""
    panels = draw_panels(0, pool)
    model = cast(Any, vae)

    def loss(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        canvas = _canvas(panels, BATCH * config.batches, generator).to(vae.device)
        strength = LATENT_NOISE / model.config.scaling_factor * torch.rand(len(canvas), 1, 1, 1, generator=generator)
        with products(vae.device):
            with torch.no_grad():
                latents = vae.encode(canvas).latent_dist.mode().float()
            noise = (torch.randn(latents.shape, generator=generator) * strength).to(vae.device)
            decoded = vae.decode(latents + noise).sample
        return {"loss": _distance(decoded, canvas)}

    cast(Any, vae).to(training_device()).requires_grad_(False)
    model.decoder.requires_grad_(True)
    report = train("decoder", list(model.decoder.parameters()), loss, config, folder)
    vae.cpu().eval().requires_grad_(False)
    return report


def _canvas(panels: np.ndarray, count: int, generator: torch.Generator) -> Tensor:
    """[count, 3, side, 2 side]: two panels side by side, the second now and then blank."""
    chosen = torch.randint(len(panels), (2 * count,), generator=generator).numpy()
    pixels = to_pixels(panels[chosen])
    canvas = torch.cat([pixels[:count], pixels[count:]], dim=3)
    blank = torch.rand(count, generator=generator) < 0.2
    canvas[blank, :, :, panels.shape[1] :] = 0.0
    return canvas


def _distance(decoded: Tensor, canvas: Tensor) -> Tensor:
    """Absolute and squared error, with more weight where the picture has edges: small objects are few pixels."""
    residual = decoded.float() - canvas
    smooth = functional.avg_pool2d(canvas, 5, stride=1, padding=2, count_include_pad=False)
    weight = 1 + DETAIL_WEIGHT * ((canvas - smooth).abs().amax(dim=1, keepdim=True) > 0.05).float()
    weight = weight / weight.mean()
    return (weight * (residual.abs() + 4 * residual.square())).mean()


def make_half(folder: Path, config: TrainConfig = HALF, *, pool: int = POOL) -> TrainReport:
    """Train the inner levels on pictures half as wide, and write weights and report to `folder`."""
    check_curve()
    vae, report = train_vae(folder, config, pool=pool, half=True)
    cast(Any, vae).save_pretrained(folder / "half")
    save_report(report, folder / "half.json")
    return report


def make_vae(folder: Path, config: TrainConfig = DEFAULT, *, pool: int = POOL) -> tuple[TrainReport, float]:
    """Train, and write weights and report to `folder`; returns the PSNR too, in dB, on 256 panels never trained on.

    Starts from the inner levels that `make_half` left in `folder`, if it did.
    """
    check_curve()
    half: AutoencoderKL | None = None
    if (folder / "half").is_dir():
        half = cast(Any, AutoencoderKL).from_pretrained(folder / "half")
    vae, report = train_vae(folder, config, pool=pool, start=half)
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
