"""Checks that the components of a base are the right ones and fit each other, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from transformers import CLIPTextModel, PreTrainedTokenizerBase, T5EncoderModel

from careedit.errors import ExpertError

if TYPE_CHECKING:
    from careedit.editing.base import EditorBase

COMPONENTS: dict[str, type] = {
    "transformer": FluxTransformer2DModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "tokenizer": PreTrainedTokenizerBase,
    "text_encoder_2": T5EncoderModel,
    "tokenizer_2": PreTrainedTokenizerBase,
    "scheduler": FlowMatchEulerDiscreteScheduler,
}
"""The components of a `FluxFillPipeline` and their classes."""

_UNSUPPORTED_SCHEDULES = (
    "stochastic_sampling",
    "invert_sigmas",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
)
"""Settings under which a schedule does not run from sigma 1 to sigma 0 without fresh noise."""


def settings(component: Any) -> Any:
    """The configuration of a component; untyped, because diffusers does not declare it."""
    return component.config


def check_components(components: Mapping[str, Any]) -> None:
    """Raise `ExpertError` for a component of another class."""
    for name, expected in COMPONENTS.items():
        if not isinstance(components[name], expected):
            raise ExpertError(
                f"The base's {name} is a {type(components[name]).__name__}, but a FluxFillPipeline has a "
                f"{expected.__name__} there."
            )


def check_base(base: EditorBase) -> None:
    """Raise `ExpertError` for a component of a wrong class, or for two that do not fit each other."""
    check_components({name: getattr(base, name) for name in COMPONENTS})
    _check_transformer(base)
    _check_text(base)
    for setting in _UNSUPPORTED_SCHEDULES:
        if settings(base.scheduler).get(setting):
            raise ExpertError(f"The base's scheduler sets {setting}, which editing does not support; unset it.")


def _check_transformer(base: EditorBase) -> None:
    config, vae = settings(base.transformer), settings(base.vae)
    if vae.shift_factor is None or vae.scaling_factor is None:
        raise ExpertError(
            "The base's vae states no shift_factor or no scaling_factor; a FluxFillPipeline's states both."
        )
    latent = 4 * base.latent_channels
    expected = 2 * latent + 4 * base.vae_scale**2
    if config.in_channels != expected:
        raise ExpertError(
            f"The base's transformer takes {config.in_channels} channels, but with its vae a fill-type transformer takes "
            f"{expected} (noisy latents, masked picture and mask); give a fill-type base."
        )
    if (config.out_channels or config.in_channels) != latent:
        raise ExpertError(f"The base's transformer gives {config.out_channels} channels, but its vae has {latent}.")


def _check_text(base: EditorBase) -> None:
    config = settings(base.transformer)
    if config.joint_attention_dim != base.text_encoder_2.config.d_model:
        raise ExpertError(
            f"The base's transformer takes text of width {config.joint_attention_dim}, but text_encoder_2 gives "
            f"{base.text_encoder_2.config.d_model}."
        )
    if config.pooled_projection_dim != base.text_encoder.config.hidden_size:
        raise ExpertError(
            f"The base's transformer takes pooled text of width {config.pooled_projection_dim}, but text_encoder gives "
            f"{base.text_encoder.config.hidden_size}."
        )
    if not 1 <= base.max_sequence_length <= 512:
        raise ExpertError(f"max_sequence_length is {base.max_sequence_length}; it must lie between 1 and 512.")
