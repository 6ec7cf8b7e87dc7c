"""Recipe of the editor's base: text encoders and transformer, trained together on fill tasks and a share of edits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import T5EncoderModel

from careedit.editing import FluxFill, Start
from careedit.finetune.drawing import processes
from careedit.finetune.flow import AuxiliaryLoss, flow_loss
from careedit.finetune.loop import TrainConfig, TrainReport, train
from careedit.finetune.optimizers import hidden_matrices
from careedit.finetune.pool import build_pool, load_pool
from careedit.finetune.precision import training_device
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH, build_pipeline
from careedit_tiny.recipes.base.heads import TaughtHeads
from careedit_tiny.recipes.base.items import corpus, edit_item, fill_item
from careedit_tiny.recipes.base.probe import PROBE_FILE, SceneProbe, scene_probe
from careedit_tiny.recipes.base.words import (
    WORD_EVERY,
    WORD_WEIGHT,
    WordProbe,
    load_words,
    save_words,
    word_loss,
    word_pool,
)

DEFAULT = TrainConfig(steps=6000, learning_rate=2e-3, warmup=200, ema=0.998, betas=(0.9, 0.98))
BATCH = 32
POOLS: Mapping[str, int] = {
    "fill": 20480,
    "erase": 6144,
    "compose": 81920,
    "style": 12288,
    "identity": 12288,
    "reference": 24576,
}
"""Items per pool. The experts are trained on the same pools. A base that sees an item ten times learns it by heart."""
MIXTURE: Mapping[str, float] = {
    "fill": 0.12, "erase": 0.04, "compose": 0.52, "style": 0.08, "identity": 0.08, "reference": 0.16
}  # fmt: skip
"""Share of steps per pool. With 0.7 fill and 0.3 edits the experts had too much left to learn in their hours (docs/notebook.md)."""

START: Start = "source"
"""What the family's edits start from, in training and in use. A base this small copies badly from another panel."""
NOISE_SCALE = 0.1
"""Standard deviation of the noise at that start, in training."""
PROBE_STEPS = 300
"""Steps of training for new probes on a base without probes."""


def initialise(transformer: FluxTransformer2DModel) -> None:
    """DiT's start (arXiv 2212.09748, section 3.2): Xavier weights, every block the identity, the velocity zero."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if "norm" in name or name == "proj_out":
                nn.init.zeros_(module.weight)


def untrained(vae: AutoencoderKL, encoder: T5EncoderModel | None = None, seed: int = 0) -> FluxFill:
    """The base as training starts: the trained VAE, the trained T5 if there is one, all else new."""
    pipe = build_pipeline(corpus(), seed=seed)
    new = FluxFill.from_pipeline(pipe, max_sequence_length=MAX_SEQUENCE_LENGTH, device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initialise(new.transformer)
    return replace(new, vae=vae, text_encoder_2=encoder or new.text_encoder_2)


def base_to(base: FluxFill, device: torch.device) -> FluxFill:
    """The base on `device`. Its models are moved, not copied, so `base` itself is not usable until they are moved back."""
    for module in (base.transformer, base.vae, base.text_encoder, base.text_encoder_2):
        cast(Any, module).to(device)
    return replace(base, device=device)


def build_pools(base: FluxFill, folder: Path, names: tuple[str, ...] = tuple(POOLS)) -> None:
    """Draw and encode every pool that is not there yet."""
    for name in names:
        items = fill_item if name == "fill" else partial(edit_item, name)
        build_pool(name, items, POOLS[name], base, folder, workers=processes(), start=START)


def fit_probes(
    base: FluxFill, pool: Mapping[str, Tensor], words: Mapping[str, Tensor], folder: Path, seed: int
) -> None:
    """Where `folder` has no probes: new ones that read from `base`, which stays as it is, what words mean and tokens show.

    From untrained ones the base would unlearn to please them.
    """
    config = TrainConfig(steps=PROBE_STEPS, learning_rate=1e-2, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        read_words, read_scene = WordProbe(base.text_encoder_2), SceneProbe(base.transformer)
    read_words.to(base.device)
    read_scene.to(base.device)

    def word(_: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        return {"loss": word_loss(base.text_encoder_2, read_words, words, generator)}

    def scene(_: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        chosen = torch.randint(len(pool["t5"]), (BATCH,), generator=generator)
        return {
            "loss": flow_loss(
                base, pool, chosen, generator, auxiliary=[read_scene.term], start=START, noise_scale=NOISE_SCALE
            )
        }

    if not (folder / "words").is_dir():
        train("probe-words", list(read_words.parameters()), word, config, folder)
        save_words(base.text_encoder_2, read_words, folder)
    if not (folder / PROBE_FILE).exists():
        train("probe-scene", list(read_scene.parameters()), scene, config, folder)
        save_file({name: value.cpu() for name, value in read_scene.state_dict().items()}, folder / PROBE_FILE)
    read_scene.detach()


def train_base(
    vae: AutoencoderKL, folder: Path, config: TrainConfig = DEFAULT, *, start: FluxFill | None = None
) -> tuple[FluxFill, TrainReport]:
    """Train from nothing but the VAE and the words in `folder`, or on from `start`; pools and checkpoints stay there."""
    base = untrained(vae, load_words(folder)[0], config.seed) if start is None else start
    base = base_to(base, training_device())
    build_pools(base, folder / "pools")
    pools = {name: load_pool(name, folder / "pools") for name in POOLS}
    words = word_pool(base.tokenizer_2, folder / "pools")
    if start is not None:
        fit_probes(base, pools["compose"], words, folder, config.seed)
    probe_words = load_words(folder)[1].to(base.device)
    shares = torch.tensor([MIXTURE[name] for name in POOLS])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        probe = SceneProbe(base.transformer) if start is None else scene_probe(base.transformer, folder)
    probe.to(base.device)
    heads = TaughtHeads(base.transformer, probe_words)

    def loss(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        name = tuple(POOLS)[int(torch.multinomial(shares, 1, generator=generator))]
        chosen = torch.randint(len(pools[name]["t5"]), (BATCH * config.batches,), generator=generator)
        terms: list[AuxiliaryLoss] = [probe.term] if name == "fill" else [probe.term, heads]
        flow = flow_loss(base, pools[name], chosen, generator, auxiliary=terms, start=START, noise_scale=NOISE_SCALE)
        if step % WORD_EVERY == 0:
            flow = flow + WORD_WEIGHT * word_loss(base.text_encoder_2, probe_words, words, generator)
        return {"loss": flow}

    modules = (base.transformer, base.text_encoder, base.text_encoder_2)
    for module in modules:
        module.requires_grad_(True)
    trained = [p for module in (*modules, probe) for p in module.parameters()]
    report = train("base", trained, loss, config, folder, matrices=hidden_matrices(*modules))
    probe.detach()
    heads.detach()
    save_file({name: value.cpu() for name, value in probe.state_dict().items()}, folder / PROBE_FILE)
    for module in modules:
        module.eval().requires_grad_(False)
    return base_to(base, torch.device("cpu")), report
