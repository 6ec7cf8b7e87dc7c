"""The learned router: calibrated probabilities, and the base alone where no expert is likely."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from careedit.encoders import load_encoder
from careedit.errors import AdapterError, ManifestError
from careedit.files import write_atomic
from careedit.records import BASE, RoutingDecision
from careedit.routing.base import RoutableExpert
from careedit.routing.features import Encoder, RoutingFeatures
from careedit.routing.topk import softmax_top_k
from careedit.routing.transformer.model import CONFIG_FILE, WEIGHTS_FILE, RouterConfig, RouterModel, collate


class TransformerRouter:
    """Routes by a trained `RouterModel` over an encoder's tokens.

    Only experts that both the model and the set know can be chosen; the others' logits are removed before the softmax.
    Raises `ManifestError` without such an expert, or if the encoder's tokens are not those that it was trained on.
    """

    name = "transformer"

    def __init__(self, model: RouterModel, encoder: Encoder, experts: Sequence[RoutableExpert]) -> None:
        config = model.config
        if encoder.width != config.encoder_width:
            raise ManifestError(
                f"The router reads tokens of width {config.encoder_width}, its encoder gives {encoder.width}; "
                "use the encoder that it was trained with."
            )
        present = {expert.name for expert in experts}
        self._names = [name for name in config.experts if name in present]
        if not self._names:
            raise ManifestError(
                f"The router knows {', '.join(config.experts)}, and the set has none of them; train it for this set."
            )
        self._kept = [config.experts.index(name) for name in self._names]
        self.model, self.encoder = model.eval().requires_grad_(False), encoder

    @property
    def config(self) -> RouterConfig:
        """The router's shape, labels and calibration."""
        return self.model.config

    @torch.inference_mode()
    def route(self, features: RoutingFeatures, *, top_k: int) -> RoutingDecision:
        """The experts for one edit; the base alone where the instruction does not apply or no expert is likely."""
        config = self.config
        tokens = features.tokens(self.encoder)
        if tokens.source.shape[0] != config.visual_tokens:
            raise ManifestError(
                f"The router reads {config.visual_tokens} tokens per picture, its encoder gives "
                f"{tokens.source.shape[0]}; use the encoder that it was trained with."
            )
        device = next(self.model.parameters()).device
        logits = self.model(collate([tokens]).to(device))
        top = softmax_top_k(logits.experts[0, self._kept].double().cpu().numpy(), top_k, temperature=config.temperature)
        feasible = float(torch.sigmoid(logits.feasible[0].double() / config.feasible_temperature))
        kept = top.weights[top.weights >= config.least_share * top.weights[0]]
        weights = {self._names[i]: float(w) for i, w in zip(top.chosen, kept / kept.sum(), strict=False)}
        best = float(top.probabilities[top.chosen[0]])
        named = " and ".join(f"{name} {top.probabilities[self._names.index(name)]:.2f}" for name in weights)
        if feasible < config.feasible_threshold:
            weights = {BASE: 1.0}
            reason = (
                f"The instruction does not seem to apply to this picture (feasible {feasible:.2f}, at least "
                f"{config.feasible_threshold:.2f} is asked for): the base alone."
            )
        elif best < config.confidence_threshold:
            weights = {BASE: 1.0}
            reason = (
                f"Low confidence: the likeliest expert is {named}, at least {config.confidence_threshold:.2f} is asked "
                "for: the base alone."
            )
        else:
            reason = f"Learned from edits of this kind: {named} (probabilities over {len(self._names)} experts)."
        return RoutingDecision(
            weights=weights,
            probabilities={name: float(p) for name, p in zip(self._names, top.probabilities, strict=True)},
            feasible=feasible,
            entropy=top.entropy,
            router=self.name,
            reason=reason,
        )


def save_router(model: RouterModel, folder: Path) -> None:
    """Writes `router.json` and `router.safetensors` (float32) to `folder`, each through a temporary name."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().float().contiguous() for name, value in model.state_dict().items()}
    write_atomic(folder / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
    model.config.save(folder / CONFIG_FILE)


def load_model(config: str | os.PathLike[str], weights: str | os.PathLike[str]) -> RouterModel:
    """Reads the two files; raises `ManifestError` or `AdapterError`."""
    read = RouterConfig.load(Path(config))
    with torch.random.fork_rng(devices=[]):
        model = RouterModel(read)
    try:
        model.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise AdapterError(
            f"The router's weights {Path(weights).name} cannot be read or do not fit its {CONFIG_FILE}; restore both."
        ) from error
    return model


def load_router(
    config: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    *,
    experts: Sequence[RoutableExpert],
    encoder: str,
    pretrained: str | None = None,
) -> TransformerRouter:
    """A router from its files and its encoder's name or folder; on a GPU if the machine has one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(config, weights).to(device)
    return TransformerRouter(model, load_encoder(encoder, pretrained=pretrained, device=device), experts)
