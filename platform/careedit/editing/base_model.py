"""The base model: the frozen components of a fill-type diffusion transformer, as diffusers names them."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxFillPipeline
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import hf_hub_download
from transformers import CLIPTextModel, PreTrainedTokenizerBase, T5EncoderModel
from transformers.utils import logging as transformers_logging

from careedit.errors import ExpertError, InputError

MAX_SEQUENCE_LENGTH = 512
"""T5 tokens per prompt of FLUX.1-Fill-dev, the maximum of FLUX."""


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


INDEX = "model_index.json"
"""The file that names the pipeline class of a folder and its components."""


@dataclass(frozen=True, eq=False)
class EditorBase:
    """The components of a `FluxFillPipeline`, checked to fit each other; the denoising loop is `Engine`'s."""

    transformer: FluxTransformer2DModel
    """Predicts the velocity; experts adapt this component only."""
    vae: AutoencoderKL
    """Encodes pixels to latents and decodes them."""
    text_encoder: CLIPTextModel
    """CLIP, which gives the pooled text embedding."""
    tokenizer: PreTrainedTokenizerBase
    """Tokenizer that belongs to `text_encoder`."""
    text_encoder_2: T5EncoderModel
    """T5, which gives an embedding per text token."""
    tokenizer_2: PreTrainedTokenizerBase
    """Tokenizer that belongs to `text_encoder_2`."""
    scheduler: FlowMatchEulerDiscreteScheduler
    """Its configuration determines the schedules; it is never stepped itself."""
    max_sequence_length: int
    """T5 tokens per prompt, 1 to 512; longer text is truncated."""
    device: torch.device
    """The device that holds the components."""
    dtype: torch.dtype
    """Number format of the latents and of the transformer's weights."""

    def __post_init__(self) -> None:
        check_base(self)

    @property
    def vae_scale(self) -> int:
        """Pixels per latent pixel, along one side."""
        return cast(int, 2 ** (len(settings(self.vae).block_out_channels) - 1))

    @property
    def latent_channels(self) -> int:
        """Channels of the VAE's latents."""
        return cast(int, settings(self.vae).latent_channels)

    @property
    def multiple(self) -> int:
        """Pixels along one side of a token; panel sides must be multiples of it."""
        return 2 * self.vae_scale

    @property
    def takes_guidance(self) -> bool:
        """Whether the base is guidance-distilled: whether it takes a guidance scale as an input."""
        return bool(settings(self.transformer).guidance_embeds)

    @classmethod
    def from_pipeline(
        cls,
        pipe: FluxFillPipeline,
        *,
        max_sequence_length: int = MAX_SEQUENCE_LENGTH,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> EditorBase:
        """The components of `pipe`, moved to `device` and `dtype` if given, in evaluation mode.

        Raises `ExpertError` if a component is not one of a `FluxFillPipeline`, or does not fit the others.
        """
        components: dict[str, Any] = {name: getattr(pipe, name, None) for name in COMPONENTS}
        for module in components.values():
            if isinstance(module, torch.nn.Module):
                module_device, module_dtype = cast(Any, module).device, cast(Any, module).dtype
                wanted = (torch.device(device or module_device), dtype or module_dtype)
                if wanted != (module_device, module_dtype):  # diffusers logs a warning at every .to()
                    module.to(device=wanted[0], dtype=wanted[1])
                module.eval()
        check_components(components)
        return cls(
            **components,
            max_sequence_length=max_sequence_length,
            device=components["transformer"].device,
            dtype=components["transformer"].dtype,
        )


def find_device(wanted: torch.device | str | None) -> torch.device:
    """`wanted`, or by default a GPU if there is one, else the CPU. Raises `InputError` for a device that does not exist."""
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has no kind of its own for this
        raise InputError(f"This machine has no device {str(wanted)!r}; use cpu, or a GPU such as cuda.") from error
    return device


def runtime_of(device: torch.device) -> str:
    """What computes on `device`: torch's version and the processor's or GPU's kind. Another one may round differently."""
    kind = platform.machine() + " " + torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    return f"torch {torch.__version__}, {kind}"


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide the progress bars that diffusers and transformers draw per component and per weight."""
    shown = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()


def load_base(
    path_or_hub_id: str | Path,
    *,
    revision: str | None = None,
    max_sequence_length: int = MAX_SEQUENCE_LENGTH,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> EditorBase:
    """Load a base from a diffusers pipeline folder or, by the same code, from the hub ("black-forest-labs/FLUX.1-Fill-dev").

    `revision` pins a hub commit. Only safetensors files are read. Raises `ExpertError` for a missing folder, a folder
    of another pipeline, and a missing, damaged or wrong component.
    """
    name = str(path_or_hub_id)
    folder = Path(path_or_hub_id).expanduser()
    if folder.is_dir():
        name = str(folder)
    elif isinstance(path_or_hub_id, Path) or folder.is_absolute() or name.count("/") != 1:
        raise ExpertError(
            f"The base folder {name!r} does not exist; give the folder of a FluxFillPipeline or a hub id 'owner/name'."
        )
    try:
        # The hub's index alone first: another kind of pipeline is refused before gigabytes are fetched.
        index = folder / INDEX if folder.is_dir() else Path(hf_hub_download(name, INDEX, revision=revision))
        config = json.loads(index.read_text("utf-8"))
    except (OSError, ValueError) as error:
        what = f"has no readable {INDEX}" if folder.is_dir() else "is not a folder, and the hub does not have it"
        raise ExpertError(f"The base {name!r} {what}; give the folder of a FluxFillPipeline or a hub id.") from error
    found = config.get("_class_name") if isinstance(config, dict) else None
    if found != FluxFillPipeline.__name__:
        raise ExpertError(f"The base {name!r} is a {found}, not a FluxFillPipeline; give a fill-type base.")
    for component in COMPONENTS:
        entry = config.get(component)
        # Nothing else is imported by name: an index must not decide which code runs.
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in ("diffusers", "transformers")):
            raise ExpertError(f"The base {name!r} names no {component} from diffusers or transformers in its {INDEX}.")
    try:
        with quiet_loading():
            pipe = cast(Any, FluxFillPipeline).from_pretrained(
                name, revision=revision, dtype=dtype or torch.float32, use_safetensors=True
            )
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise ExpertError(
            f"The base {name!r} could not be loaded, a component is missing or damaged: {reason}."
        ) from error
    return EditorBase.from_pipeline(pipe, max_sequence_length=max_sequence_length, device=device)


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
            f"{expected} (noisy latents, masked image and mask); give a fill-type base."
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
