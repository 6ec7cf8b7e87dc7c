"""The nouns of careedit: one frozen, strict record each, the same in Python, over HTTP and in logs."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from careedit.errors import InputError, MaskError, UnknownExpertError
from careedit.families import Quantisation
from careedit.images import MAX_REFERENCES, decode_image, decode_mask, other_size
from careedit.record import Record

MAX_INSTRUCTION_CHARACTERS = 2_000
MAX_STEPS = 200
MAX_IMAGES = 16
MAX_SEED = 2**63 - 1
MAX_CANDIDATES = 16
BASE = "base"
"""The name for no expert: the frozen base alone."""


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise `InputError` unless the experts' weights are positive and sum to 1, within 0.001."""
    if any(weight <= 0 for weight in weights.values()) or not abs(sum(weights.values()) - 1) <= 1e-3:  # NaN fails too
        raise InputError(f"The expert weights {dict(weights)} must be positive and sum to 1.", field="expert")


Picture = Annotated[Image.Image, BeforeValidator(decode_image)]
"""An RGB picture; a path, the bytes of a PNG, JPEG, WebP, HEIC or AVIF file, or a PIL image is decoded to one."""

EditMask = Annotated[Image.Image, BeforeValidator(decode_mask)]
"""An "L" picture, 255 where the edit may change pixels; decoded as `Picture` is."""


def _between(low: float, high: float, message: str) -> AfterValidator:
    """A check that a number is from `low` to `high`, or None; `message` is the error's, with the number as `{}`."""

    def check(value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and not low <= value <= high:
            raise InputError(message.format(value), field=info.field_name)
        return value

    return AfterValidator(check)


FilterStrategy = Literal["none", "restart", "continue", "halving"]


class EarlyFilter(Record):
    """Try several starting noises per image, preview them cheaply, and let a judge choose the one to finish."""

    strategy: FilterStrategy = "halving"
    """How candidates are dropped, see `careedit.selection`; default "halving". "none" finishes the first noise
    without a judge."""
    candidates: Annotated[
        int, _between(1, MAX_CANDIDATES, f"candidates is {{}}; between 1 and {MAX_CANDIDATES} noises can be tried.")
    ] = 6
    """Number of starting noises per image, 1 to 16; default 6. More candidates cost more steps. Candidate j of
    image i has the seed `seed + i + j * n`."""
    preview_steps: Annotated[
        int | None, _between(1, MAX_STEPS - 1, f"preview_steps is {{}}; it must lie between 1 and {MAX_STEPS - 1}.")
    ] = None
    """Denoising steps before the last preview, fewer than the steps of the edit. Default: a quarter of those. Raise it
    if previews are too rough to judge."""
    early_exit: Annotated[float, Field(gt=0, le=1)] | None = None
    """Overall score, above 0 and at most 1, at which a candidate is accepted at once and the others are dropped.
    Default: never."""
    timeout: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 60.0
    """Time limit in seconds for one answer of the judge, at most 3600; default 60. If the judge takes longer, the
    edit continues without the filter."""


class StepCache(Record):
    """Skipping evaluations: at a skipped step the velocity is extrapolated from the edit's last two evaluated steps.

    It equals diffusers' `TaylorSeerCacheConfig(use_lite_mode=True)`, but per edit, so that edits at different steps may
    share a batch.
    """

    interval: Annotated[int, Field(ge=2, le=20)] = 3
    """After the first steps, one step in this many is evaluated, 2 to 20; default 3. Raise it to be faster and coarser."""
    first: Annotated[int, Field(ge=2, le=MAX_STEPS)] = 3
    """Number of steps at the start that are always evaluated; default 3. Raise it if the layout of results suffers."""

    def evaluates(self, step: int) -> bool:
        """Whether step `step` (0 is the first) is evaluated."""
        return step < self.first or (step - self.first - 1) % self.interval == 0

    def evaluations(self, steps: int) -> int:
        """Number of evaluated steps of `steps`."""
        return sum(self.evaluates(step) for step in range(steps))


class EditRequest(Record):
    """One edit: a source image, an instruction, and options."""

    image: Picture
    """The source image. A path, the bytes of a PNG, JPEG, WebP, HEIC or AVIF file, and a PIL image are decoded to
    RGB."""
    instruction: str
    """What to change, in plain language; 1 to 2,000 characters."""
    mask: EditMask | None = None
    """Where the edit may change pixels: 255 is edited, 0 is kept. It has the size of the source. Default: the whole
    image may change."""
    references: tuple[Picture, ...] = ()
    """Images to take a color, texture, object or look from; at most one is supported. Default: no references."""
    seed: Annotated[int | None, _between(0, MAX_SEED, "The seed is {}; it must lie between 0 and 2^63 - 1.")] = None
    """Seed of the first image's noise, 0 to 2^63 - 1. Default: a random seed, which is recorded in the trace. Set
    it to repeat an edit."""
    steps: Annotated[int | None, _between(1, MAX_STEPS, f"steps is {{}}; it must lie between 1 and {MAX_STEPS}.")] = (
        None
    )
    """Number of denoising steps, 1 to 200. Default: the expert set's value. More steps take more time and can give
    finer detail."""
    guidance: Annotated[float | None, _between(0, 1000, "guidance is {}; it must lie between 0 and 1000.")] = None
    """Guidance scale, 0 to 1000, for a guidance-distilled base. Default: the expert set's value. Raise it to follow
    the instruction more strictly."""
    n: Annotated[
        int, _between(1, MAX_IMAGES, f"n is {{}}; between 1 and {MAX_IMAGES} images can be asked for at once.")
    ] = 1
    """Number of images to make, 1 to 16; default 1. Image i starts from the noise of `seed + i`."""
    expert: str | Mapping[str, float] = "auto"
    """Which experts edit. "auto" (default): the router chooses; a name: that expert alone; "base": no expert; a
    mapping: a mixture with these weights, which sum to 1."""
    top_k: Annotated[int | None, _between(1, math.inf, "top_k is {}; at least one expert must be allowed.")] = None
    """Maximum number of experts that the router may mix. Default: the expert set's value. Each expert costs one
    evaluation per step."""
    refine_mask: bool = False
    """Whether to fit a coarse mask to the object that it covers before editing; the mask may grow and shrink.
    Default: false."""
    early_filter: EarlyFilter | None = None
    """Settings of the early filter, which needs an editor with a judge. Default: one noise per image and no
    previews."""
    step_cache: Annotated[StepCache | None, Field(exclude_if=lambda value: value is None)] = None
    """Which steps are extrapolated instead of evaluated. Default: every step is evaluated."""

    @field_validator("instruction")
    @classmethod
    def _check_instruction(cls, value: str) -> str:
        text = value.strip()
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:  # half of a surrogate pair, as undecodable bytes of a command line become
            raise InputError("The instruction is not valid text; give it as UTF-8.", field="instruction") from None
        if not text:
            raise InputError(
                "The instruction is empty; say what to change, e.g. 'remove the red circle'.", field="instruction"
            )
        if len(text) > MAX_INSTRUCTION_CHARACTERS:
            raise InputError(
                f"The instruction has {len(text):,} characters; the limit is {MAX_INSTRUCTION_CHARACTERS:,}. Shorten it.",
                field="instruction",
            )
        return text

    @field_validator("expert")
    @classmethod
    def _check_expert(cls, value: str | Mapping[str, float]) -> str | Mapping[str, float]:
        if isinstance(value, str):
            return value
        check_weights(value)
        return dict(value)

    @field_validator("references", mode="before")
    @classmethod
    def _check_references(cls, value: Any) -> Any:
        one = isinstance(value, str | bytes | bytearray | memoryview | os.PathLike | Image.Image)
        if not one and not isinstance(value, Iterable):
            raise InputError(f"references is a {type(value).__name__}; give one or more pictures.", field="references")
        return (value,) if one else tuple(value)

    @model_validator(mode="after")
    def _check_together(self) -> EditRequest:
        if self.mask is not None and self.mask.size != self.image.size:
            raise MaskError(other_size(self.mask, self.image))
        if self.mask is not None and self.mask.getextrema()[1] == 0:  # pyright: ignore[reportOperatorIssue]
            raise MaskError("The mask marks nothing: no pixel is set to be edited; mark the region to change.")
        if len(self.references) > MAX_REFERENCES:
            raise InputError(
                f"{len(self.references)} references were given; give at most {MAX_REFERENCES}.", field="references"
            )
        if self.refine_mask and self.mask is None:
            raise MaskError("refine_mask needs a mask; give a mask or leave refine_mask off.", field="refine_mask")
        return self


class RoutingDecision(Record):
    """The experts that an edit uses, and the reason."""

    weights: Mapping[str, float]
    """Weight of each chosen expert; the weights sum to 1. "base" means no expert."""
    probabilities: Mapping[str, float] = Field(default_factory=dict)
    """Probability of each expert of the set before top-k. Empty if the router computes none."""
    feasible: float = 1.0
    """Probability, 0 to 1, that the instruction applies to the image at all; default 1."""
    entropy: float = 0.0
    """Entropy of `probabilities` in nats; default 0. A high value means that the router was unsure."""
    router: str
    """Name of the router that decided: "rules", "fixed" or "transformer"."""
    reason: str
    """The reason for the decision, as a sentence for people."""


def mixture_rows(weights: Mapping[str, float], *, masked: bool) -> tuple[str, ...]:
    """The experts an edit must evaluate per step, in a fixed order: sorted, so that equal mixtures round equally.

    A mixture under a mask needs the base too; a single expert is not mixed, with or without a mask.
    """
    names = sorted(weights)
    if masked and len(names) > 1 and BASE not in names:
        names.append(BASE)
    return tuple(names)


def unknown_expert(name: str, known: Collection[str]) -> UnknownExpertError:
    """The error for an expert that a set does not have; `known` are the set's experts."""
    return UnknownExpertError(
        f"The expert {name!r} does not exist; the experts are {', '.join(known) or 'none'} and {BASE!r}."
    )


class BatchSlot(Record):
    """One edit's place in a batch. A replay needs the shapes of the whole batch to repeat every rounding."""

    steps: int
    """Number of denoising steps of the edit in this slot."""
    weights: Mapping[str, float]
    """Weight of each expert that the edit in this slot uses."""
    masked: bool = False
    """Whether the edit in this slot has a mask, which adds the base to a mixture. Default: false."""
    text_tokens: Annotated[tuple[int, ...], Field(exclude_if=lambda value: not value)] = ()
    """Text tokens of each guidance branch, for a base that takes guidance as a second row. Empty for other bases."""
    step_cache: Annotated[StepCache | None, Field(exclude_if=lambda value: value is None)] = None
    """The step cache of the edit in this slot; null if every step is evaluated."""


class FilterCandidate(Record):
    """One starting noise that an early filter tried."""

    seed: int
    """Seed of this candidate's starting noise."""
    steps: int
    """Denoising steps that were done at this candidate's last preview."""
    score: Annotated[float, Field(ge=0, le=1)] | None = None
    """The judge's overall score of the last preview, 0 to 1; null if it has no score."""
    error: str | None = None
    """The reason why the score is missing, as a sentence; null if it has a score."""
    preview_sha256: str
    """SHA-256 of the last preview's pixels and size."""


class FilterLook(Record):
    """One look of the judge. Which noises shared the steps before it decides how those steps were rounded."""

    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    """Denoising steps that every remaining candidate had done at this look."""
    alive: Annotated[tuple[int, ...], Field(min_length=1, max_length=MAX_CANDIDATES)]
    """Indices of the remaining candidates, in the order of their slots in the batch."""


class FilterTrace(Record):
    """What an early filter measured and chose."""

    strategy: FilterStrategy
    """The strategy by which candidates were dropped."""
    preview_steps: int
    """Denoising steps before the last planned look."""
    candidates: tuple[FilterCandidate, ...]
    """Every candidate that was tried, in the order of their indices."""
    looks: tuple[FilterLook, ...]
    """Every look of the judge, in order."""
    chosen: int
    """Index of the candidate that was finished."""
    exited_early: bool = False
    """Whether a candidate reached `early_exit`, so that later looks were skipped. Default: false."""
    nfe: int
    """Number of transformer evaluations until the choice was made, over all candidates."""
    judge: Mapping[str, str]
    """Identity of the judge: the fields of `careedit.scoring.JudgeIdentity`."""
    judge_seconds: float
    """Wall-clock time that the judge took, in seconds."""
    degraded: str | None = None
    """Why the judge could not choose, as a part of a sentence; the best candidate so far, or else the first, was
    finished. Null if it chose."""

    @model_validator(mode="after")
    def _check_chosen(self) -> FilterTrace:
        known = range(len(self.candidates))
        if any(self.chosen not in look.alive or not set(look.alive) <= set(known) for look in self.looks):
            raise InputError(
                "The trace's filter chose a candidate that it had dropped; give a trace as careedit wrote it."
            )
        if self.chosen not in known:
            raise InputError(f"The trace's filter has no candidate {self.chosen}; give a trace as careedit wrote it.")
        return self


class EditTrace(Record):
    """Everything that is needed to understand an edit and to replay it bit for bit."""

    version: Literal[1] = 1
    """Format version of this record; always 1."""
    expert_set: str
    """Name of the expert set that made the edit."""
    expert_set_sha256: str
    """SHA-256 of the expert set: base, experts, router and defaults."""
    instruction: str
    """The instruction, as it was used."""
    prompt: str
    """The in-context prompt that the base model received."""
    image_sha256: str
    """SHA-256 of the source's decoded pixels and size."""
    mask_sha256: str | None = None
    """SHA-256 of the mask's decoded pixels and size; null if there was no mask."""
    reference_sha256: tuple[str, ...] = ()
    """SHA-256 of each reference's decoded pixels and size, in order."""
    routing: RoutingDecision
    """The experts that were used, and the reason."""
    application: Literal["merged", "shared"]
    """How the adapters were applied. "merged": added into the weights; "shared": computed next to the weights."""
    seed: int
    """Seed of this image's starting noise."""
    steps: int
    """Number of denoising steps that were done."""
    guidance: float | None
    """Guidance scale that was used; null if the base takes no guidance."""
    refine_mask: bool = False
    """Whether the mask was fitted to its object. Default: false."""
    step_cache: Annotated[StepCache | None, Field(exclude_if=lambda value: value is None)] = None
    """Which steps were extrapolated; null if every step was evaluated."""
    panel: tuple[int, int]
    """Width and height of one panel of the canvas, in pixels."""
    nfe: int
    """Number of transformer evaluations for this image, one per expert and step, including the previews of its
    early filter."""
    batch: tuple[BatchSlot, ...]
    """Every slot of the batch in which this image was made, in order."""
    slot: int
    """Index of this image in `batch`."""
    device: str
    """Type of the device that computed, for example "cpu" or "cuda"."""
    dtype: str
    """Number format of the weights, for example "float32"."""
    quantisation: Annotated[Quantisation | None, Field(exclude_if=lambda value: value is None)] = None
    """Number format in which the transformer's weights were stored; null if they were not quantised."""
    runtime: str
    """Version of torch, the kind of processor or GPU, and whether blocks are compiled. Another runtime may round differently."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Number of torch threads on a CPU, which affects rounding; null on a GPU."""
    seconds: Mapping[str, float]
    """Wall-clock time of each stage in seconds, shared by the images of a batch: "route", "prepare" (with an early
    filter "filter", which covers previews and judge), "denoise" and "finish"."""
    filter: FilterTrace | None = None
    """What the early filter measured and chose; null if it was not requested or had only one candidate."""
    degradations: tuple[str, ...] = ()
    """What did not happen as requested, for example "router: low confidence, base used". Empty by default."""

    @model_validator(mode="after")
    def _check_slot(self) -> EditTrace:
        if not 0 <= self.slot < len(self.batch):
            raise InputError(
                f"The trace names slot {self.slot} of a batch of {len(self.batch)}; give a trace as careedit wrote it."
            )
        return self


class EditResult(Record):
    """The images of one request, each with its trace."""

    images: tuple[Image.Image, ...]
    """The edited images: RGB, in the size of the source."""
    traces: tuple[EditTrace, ...]
    """One trace per image, in the same order."""
    previews: tuple[tuple[Image.Image, ...], ...] = ()
    """For each image, the last preview of each candidate of its early filter, in the order of the trace and in the
    size of the panel."""

    @property
    def image(self) -> Image.Image:
        """The first image."""
        return self.images[0]

    @property
    def trace(self) -> EditTrace:
        """The first image's trace."""
        return self.traces[0]

    def save(self, path: str | Path) -> None:
        """Write the first image to `path` (its suffix names the format) through a temporary name."""
        from careedit.images import save_image

        save_image(self.image, path)
