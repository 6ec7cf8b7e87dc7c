"""The base class of all families: what the engine asks of a loaded base, and the checks that all families share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from threading import Lock
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self, cast

import torch
from cachetools import LRUCache
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.flux.pipeline_flux_fill import calculate_shift
from PIL import Image
from torch import Tensor, nn

from careedit.editing.cache import EncodingCache, Tensors
from careedit.editing.families.prompts import Prompt, PromptEncoder, check_components
from careedit.editing.job import EditJob
from careedit.errors import CareEditError, ExpertError, ImageError, InputError
from careedit.experts.applier import Inputs
from careedit.families import GuidanceKind
from careedit.records import mixture_rows

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


@dataclass(frozen=True, eq=False)
class Encoded:
    """The part of an edit that does not depend on its seed: text and pictures as tensors."""

    texts: tuple[Mapping[str, Tensor], ...]
    """Text inputs of the transformer, one mapping per guidance branch: with the instruction, then without it."""
    scale: float | None
    """Guidance scale in use; None if the base takes none."""
    grid: tuple[int, int]
    """Rows and columns of the tokens that are denoised: the target's, or the whole canvas'."""
    layout: Hashable
    """What two edits must have in common to share a batch."""
    shared: Mapping[str, Any]
    """Inputs of the transformer that all rows of a batch share, such as positions."""
    pictures: tuple[Tensor, ...]
    """Encoded pictures, in the family's own form."""
    truncated: bool = False
    """Whether the instruction is longer than the base reads, so that its end is missing."""

    @property
    def text_tokens(self) -> tuple[int, ...]:
        """Number of text tokens of each guidance branch."""
        return tuple(text["encoder_hidden_states"].shape[1] for text in self.texts)


@dataclass(frozen=True, eq=False)
class Kept:
    """What stays of the source while a base without mask input denoises: the stock inpaint pipelines at strength 1."""

    free: Tensor
    """1 where the edit is free, 0 where the source is kept, tokens [1, T, 1], in the latents' number format."""
    noise: Tensor
    """The noise of the edit's start, tokens [1, T, C]."""
    clean: Tensor
    """The source's latents on the target's grid, tokens [1, T, C]."""

    def restore(self, latents: Tensor, sigma: Tensor) -> Tensor:
        """`latents` where the edit is free, and the source's latents at noise level `sigma` elsewhere."""
        level = sigma.to(self.clean.dtype)
        return (1 - self.free) * (level * self.noise + (1.0 - level) * self.clean) + self.free * latents


class Begin(NamedTuple):
    """The random part of an edit, drawn from its own seed on the CPU, so that it depends on neither batch nor device."""

    latents: Tensor
    """The tokens that denoising starts from, [1, T, C]."""
    condition: Tensor
    """What the transformer sees with them: channels next to each token, or tokens behind them."""
    coverage: Tensor | None = None
    """Share of each token's pixels that the mask marks as editable, [1, T, 1], for a native mask; else None."""
    kept: Kept | None = None
    """The kept source of an edit with a mask, for a base without mask input; else None."""


class Row(NamedTuple):
    """One row of a batch."""

    latents: Tensor
    """Noisy tokens of the edit, [1, T, C]."""
    condition: Tensor
    """What the transformer sees with them: `Begin.condition` of the edit."""
    text: Mapping[str, Tensor]
    """The text inputs of one guidance branch."""
    scale: float | None
    """The edit's guidance scale; None if the base takes none."""
    memory: dict[str, Any]
    """What the base keeps of this edit and expert between steps; empty at the first step."""


@dataclass(frozen=True, eq=False)
class Family(PromptEncoder):
    """One loaded base: it knows everything between an edit's job and the transformer's tokens. `Engine` knows tokens only."""

    prompt_encoder: ClassVar[type[PromptEncoder]]
    """The part of the family that has the text encoders alone."""
    first_step_apart: ClassVar[bool] = False
    """Whether an edit's first step cannot share a batch with later steps of other edits. Default: false."""

    transformer: Any
    """Predicts the velocity; experts adapt this component only."""
    vae: Any
    """Encodes pixels to latents and decodes them."""
    scheduler: FlowMatchEulerDiscreteScheduler
    """Its configuration determines the schedules; it is never stepped itself."""
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), kw_only=True)
    """Plain values of the pipeline's configuration, such as `is_distilled`."""
    _shared: LRUCache[Hashable, Mapping[str, Any]] = field(
        default_factory=lambda: LRUCache(256), init=False, repr=False
    )
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        others = [name for name in self.facts.components if name not in self.facts.text_components]
        check_components(self.facts, {name: getattr(self, name) for name in others})
        self.check_fit()
        for setting in _UNSUPPORTED_SCHEDULES:
            if settings(self.scheduler).get(setting):
                raise ExpertError(f"The base's scheduler sets {setting}, which editing does not support; unset it.")

    @classmethod
    def from_pipeline(
        cls,
        pipe: Any,
        *,
        max_sequence_length: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        text_encoders: bool = True,
    ) -> Self:
        """The components of `pipe`, moved to `device` and `dtype` if given, in evaluation mode.

        Without `text_encoders` the base has none and takes encoded prompts. Raises `ExpertError` if a component has another
        class than the family's, or does not fit the others.
        """
        left_out = () if text_encoders else cls.facts.text_encoders
        wanted = [name for name in cls.facts.components if name not in left_out]
        components = {**placed(pipe, wanted, device, dtype), **dict.fromkeys(left_out)}
        check_components(cls.facts, {name: components[name] for name in wanted})
        plain = {
            name: value for name, value in getattr(pipe, "config", {}).items() if isinstance(value, bool | int | float)
        }
        return cls(
            **components,
            max_sequence_length=cls.facts.text_tokens if max_sequence_length is None else max_sequence_length,
            device=components["transformer"].device,
            dtype=components["transformer"].dtype,
            options=MappingProxyType(plain),
        )

    # ------------------------------------------------------------------ facts of the loaded components
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
        """Panel sides must be multiples of this many pixels: the side of a token."""
        return 2 * self.vae_scale

    @property
    def guidance(self) -> GuidanceKind:
        """How this base takes guidance."""
        return self.facts.guidance

    @cached_property
    def image_processor(self) -> Any:
        """Pixels to tensors and back, as the pipeline's own processor does it."""
        return VaeImageProcessor(vae_scale_factor=2 * self.vae_scale, vae_latent_channels=self.latent_channels)

    # ------------------------------------------------------------------ checks
    @abstractmethod
    def check_fit(self) -> None:
        """Raise `ExpertError` for two components that do not fit each other."""

    def check(self, job: EditJob) -> float | None:
        """The guidance scale that an edit would use; raises what `encode` would raise for this base, at no cost.

        Raises `InputError` for guidance on a base that takes none, for a start or a number of references that the family
        does not know, and `ImageError` for a panel size that does not fit.
        """
        multiple = self.multiple
        for name, picture in (("source", job.source), *(("reference", one) for one in job.references)):
            if picture.width % multiple or picture.height % multiple:
                raise ImageError(
                    f"The {name}'s panel is {picture.width}x{picture.height}; its sides must be multiples of {multiple}."
                )
        if job.steps == 1 and settings(self.scheduler).get("shift_terminal"):
            raise InputError(
                f"The base {self.facts.name} cannot edit in one step, because its schedule is stretched to a last step; "
                "give at least 2 steps.",
                field="steps",
            )
        if len(job.references) > self.facts.references:
            takes = {0: "no reference", 1: "one reference"}.get(
                self.facts.references, f"{self.facts.references} references"
            )
            raise InputError(
                f"{len(job.references)} references were given, but the base {self.facts.name} takes {takes}.",
                field="references",
            )
        if job.start not in self.facts.starts:
            raise InputError(f"The base {self.facts.name} cannot start from {job.start!r}; it starts from noise.")
        if self.guidance == "none" and job.guidance is not None:
            raise InputError(
                f"guidance is {job.guidance}, but this base takes none; leave guidance out.", field="guidance"
            )
        return self.scale(job)

    def scale(self, job: EditJob) -> float | None:
        """The guidance scale of an edit that was checked; None if the base takes none."""
        if self.guidance == "none":
            return None
        return self.facts.default_guidance if job.guidance is None else job.guidance

    # ------------------------------------------------------------------ what the engine asks for
    @abstractmethod
    def prompt(self, job: EditJob) -> str:
        """The text that the base reads for an edit."""

    @abstractmethod
    def prompts(self, job: EditJob) -> tuple[Prompt, ...]:
        """What the text encoders read for an edit, one prompt per guidance branch: with the instruction, then without it."""

    @abstractmethod
    def encode(self, job: EditJob, cache: EncodingCache, texts: Sequence[Tensors] | None = None) -> Encoded:
        """Encode text and pictures, repeated ones from `cache`. Nothing is drawn from the seed.

        `texts` are `prompts`, encoded elsewhere; None: they are encoded here.
        """

    def encode_texts(self, job: EditJob, cache: EncodingCache) -> list[Tensors]:
        """The encoded prompts of an edit, each encoded alone."""
        if self.text_encoder is None:
            raise CareEditError("This base was loaded without its text encoders; give `prepare` the encoded prompts.")
        return [cache.get(one.key, partial(self._encode_alone, one)) for one in self.prompts(job)]

    def _encode_alone(self, prompt: Prompt) -> Tensors:
        return self.encode_prompts([prompt])[0]

    @abstractmethod
    def begin(self, job: EditJob, encoded: Encoded) -> Begin:
        """Draw everything that the seed decides, in the order of the stock pipeline."""

    @abstractmethod
    def inputs(self, rows: Sequence[Row], timesteps: Tensor, shared: Mapping[str, Any]) -> Inputs:
        """The transformer's arguments for a batch; `timesteps` are the rows' sigmas times 1000, [rows]."""

    @abstractmethod
    def decode(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens [B, T, C] on `grid` to pictures [B, 3, height, width] in about -1..1 (for a canvas: the whole canvas)."""

    @abstractmethod
    def to_image(self, picture: Tensor, job: EditJob) -> Image.Image:
        """The target of one decoded picture [1, 3, height, width] as an RGB image of the source panel's size."""

    def remember(self, layout: Hashable, make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """The inputs that the rows of a batch of `layout` share, made once."""
        with self._lock:
            shared = self._shared.get(layout)
            if shared is None:
                shared = self._shared[layout] = make()
            return shared

    def shift(self, tokens: int, steps: int) -> float:
        """The scheduler's `mu` for `tokens` denoised tokens and `steps` steps."""
        config = settings(self.scheduler)
        return cast(
            float,
            calculate_shift(
                tokens,
                config.get("base_image_seq_len", 256),
                config.get("max_image_seq_len", 4096),
                config.get("base_shift", 0.5),
                config.get("max_shift", 1.15),
            ),
        )

    def combine(self, branches: Sequence[Tensor], scale: float | None) -> Tensor:
        """The guided velocity of one expert from its branches' velocities: u + scale * (c - u)."""
        if len(branches) == 1 or scale is None:
            return branches[0]
        with_text, without = branches
        return without + scale * (with_text - without)

    # ------------------------------------------------------------------ cost
    def branches(self, job: EditJob) -> int:
        """Guidance branches of an edit: 2 where the base takes guidance as a second row, and the scale is above 1."""
        if self.guidance != "branches":
            return 1
        if job.text_tokens is not None:
            return len(job.text_tokens)
        return 2 if (self.scale(job) or 0.0) > 1 else 1

    def rows_of(self, job: EditJob) -> int:
        """Transformer evaluations that one step of an edit takes, one per expert and guidance branch."""
        masked = job.mask is not None and self.facts.mask == "native"
        return len(mixture_rows(job.weights, masked=masked)) * self.branches(job)

    def pixels(self, job: EditJob) -> int:
        """Pixels that one row of an edit's batch covers: target, source and references."""
        return sum(one.width * one.height for one in (job.source, job.source, *job.references))

    def work_of(self, job: EditJob) -> int:
        """One step's work, in row-pixels."""
        return self.rows_of(job) * self.pixels(job)


def placed(
    pipe: Any, names: Iterable[str], device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> dict[str, Any]:
    """The components `names` of `pipe`, moved to `device` and `dtype` if given, in evaluation mode."""
    components: dict[str, Any] = {name: getattr(pipe, name, None) for name in names}
    for module in components.values():
        if isinstance(module, nn.Module):
            own: Any = module
            # Only what differs: diffusers logs a warning at every .to(), and a dtype would undo a quantisation.
            wanted = {"device": None if device is None else torch.device(device), "dtype": dtype}
            if changed := {name: one for name, one in wanted.items() if one not in (None, getattr(own, name))}:
                own.to(**changed)
            module.eval()
    return components
