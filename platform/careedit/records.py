"""The nouns of careedit: one frozen, strict record each, the same in Python, over HTTP and in logs."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from careedit.errors import InputError, MaskError, UnknownExpertError
from careedit.images import MAX_REFERENCES, decode_image, decode_mask, other_size

MAX_INSTRUCTION_CHARACTERS = 2_000
MAX_STEPS = 200
MAX_IMAGES = 16
MAX_SEED = 2**63 - 1
MAX_CANDIDATES = 16
BASE = "base"
"""The name for no expert: the frozen base alone."""


class Record(BaseModel):
    """Base of every record: frozen; an unknown field, a missing one and a value of the wrong type raise `InputError`."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __init__(self, **fields: Any) -> None:
        unknown = [
            name
            for name in fields
            if name not in type(self).model_fields and name not in {f.alias for f in type(self).model_fields.values()}
        ]
        if unknown:
            known = ", ".join(type(self).model_fields)
            raise InputError(f"{type(self).__name__} has no field {unknown[0]!r}; its fields are {known}.")
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InputError(_flaw(type(self).__name__, error)) from error


def _flaw(record: str, error: ValidationError) -> str:
    """The first flaw of a validation report, as a sentence."""
    flaw = error.errors(include_url=False)[0]
    # Of a field that may be several things, the path goes on to say which of them failed; the field itself is enough.
    path = [str(part) for part in flaw["loc"]]
    if flaw["type"] == "missing":
        return f"{record} needs the field {'.'.join(path)!r}, which is missing; give it."
    reason = str(flaw["msg"]).rstrip(".")
    return f"{record} takes no {repr(flaw['input'])[:80]} for its field {path[0]!r}: {reason[:1].lower()}{reason[1:]}."


Picture = Annotated[Image.Image, BeforeValidator(decode_image)]
"""An RGB picture; a path, the bytes of a PNG, JPEG, WebP, HEIC or AVIF file, or a PIL image is decoded to one."""

EditMask = Annotated[Image.Image, BeforeValidator(decode_mask)]
"""An "L" picture, 255 where the edit may change pixels; decoded as `Picture` is."""


FilterStrategy = Literal["none", "restart", "continue", "halving"]


class EarlyFilter(Record):
    """Several starting noises per image, cheap previews of them, and a judge who says which one is finished."""

    strategy: FilterStrategy = "halving"
    """As in `careedit.selection`; "none" takes the first noise."""
    candidates: int = 6
    """Noises per image, 1 to 16; candidate j of image i starts from the noise of `seed + i + j * n`."""
    preview_steps: int | None = None
    """Steps before the last look, fewer than the edit's; None: a quarter of those."""
    early_exit: Annotated[float, Field(gt=0, le=1)] | None = None
    """A candidate whose overall score reaches this goes on at once, and the others are given up; None: never."""
    timeout: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 60.0
    """Seconds that the judge may take for one look; one that takes longer costs the filter, not the edit."""

    @field_validator("candidates")
    @classmethod
    def _check_candidates(cls, value: int) -> int:
        if not 1 <= value <= MAX_CANDIDATES:
            raise InputError(f"candidates is {value}; between 1 and {MAX_CANDIDATES} noises can be tried.")
        return value

    @field_validator("preview_steps")
    @classmethod
    def _check_preview_steps(cls, value: int | None) -> int | None:
        if value is not None and not 1 <= value < MAX_STEPS:
            raise InputError(f"preview_steps is {value}; it must lie between 1 and {MAX_STEPS - 1}.")
        return value


class EditRequest(Record):
    """One edit that somebody wants: a source, an instruction, and what narrows them."""

    image: Picture
    """The source."""
    instruction: str
    """What to change, in words; 1 to 2,000 characters."""
    mask: EditMask | None = None
    """Where the edit may change pixels: 255 = edit, 0 = keep; of the source's size. None: everywhere."""
    references: tuple[Picture, ...] = ()
    """Pictures to take a colour, a texture, an object or a look from; at most `MAX_REFERENCES`."""
    seed: int | None = None
    """Seed of the first image's noise, 0 to 2^63 - 1; None draws one, which the trace then states."""
    steps: int | None = None
    """Denoising steps, 1 to 200; None: the expert set's default."""
    guidance: float | None = None
    """Guidance scale for a guidance-distilled base; None: the expert set's default."""
    n: int = 1
    """How many images; image i starts from the noise of `seed + i`."""
    expert: str | Mapping[str, float] = "auto"
    """"auto" lets the router choose, a name fixes one expert ("base": none), a mapping fixes a mixture's weights."""
    top_k: int | None = None
    """How many experts the router may mix; None: the expert set's default."""
    refine_mask: bool = False
    """Whether a coarse mask is fitted to the object it covers (it may grow and shrink) before editing."""
    early_filter: EarlyFilter | None = None
    """Whether several noises are tried per image; it needs an editor with a judge. None: one noise, no previews."""

    @field_validator("instruction")
    @classmethod
    def _check_instruction(cls, value: str) -> str:
        text = value.strip()
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:  # half of a surrogate pair, as undecodable bytes of a command line become
            raise InputError("The instruction holds bytes that are no text; give it as UTF-8.") from None
        if not text:
            raise InputError("The instruction is empty; say what to change, e.g. 'remove the red circle'.")
        if len(text) > MAX_INSTRUCTION_CHARACTERS:
            raise InputError(
                f"The instruction has {len(text):,} characters; the limit is {MAX_INSTRUCTION_CHARACTERS:,}. Shorten it."
            )
        return text

    @field_validator("seed")
    @classmethod
    def _check_seed(cls, value: int | None) -> int | None:
        if value is not None and not 0 <= value <= MAX_SEED:
            raise InputError(f"The seed is {value}; it must lie between 0 and 2^63 - 1.")
        return value

    @field_validator("steps")
    @classmethod
    def _check_steps(cls, value: int | None) -> int | None:
        if value is not None and not 1 <= value <= MAX_STEPS:
            raise InputError(f"steps is {value}; it must lie between 1 and {MAX_STEPS}.")
        return value

    @field_validator("n")
    @classmethod
    def _check_n(cls, value: int) -> int:
        if not 1 <= value <= MAX_IMAGES:
            raise InputError(f"n is {value}; between 1 and {MAX_IMAGES} images can be asked for at once.")
        return value

    @field_validator("top_k")
    @classmethod
    def _check_top_k(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise InputError(f"top_k is {value}; at least one expert must be allowed.")
        return value

    @field_validator("guidance")
    @classmethod
    def _check_guidance(cls, value: float | None) -> float | None:
        if value is not None and not 0 <= value <= 1000:
            raise InputError(f"guidance is {value}; it must lie between 0 and 1000.")
        return value

    @field_validator("expert")
    @classmethod
    def _check_expert(cls, value: str | Mapping[str, float]) -> str | Mapping[str, float]:
        if isinstance(value, str):
            return value
        if not value or any(not 0 < weight <= 1 for weight in value.values()) or abs(sum(value.values()) - 1) > 1e-3:
            raise InputError(f"The expert weights {dict(value)} must be positive and sum to 1.")
        return dict(value)

    @field_validator("references", mode="before")
    @classmethod
    def _check_references(cls, value: Any) -> Any:
        one = isinstance(value, str | bytes | bytearray | memoryview | os.PathLike | Image.Image)
        if not one and not isinstance(value, Iterable):
            raise InputError(f"references is a {type(value).__name__}; give a picture or several of them.")
        return (value,) if one else tuple(value)

    @model_validator(mode="after")
    def _check_together(self) -> EditRequest:
        if self.mask is not None and self.mask.size != self.image.size:
            raise MaskError(other_size(self.mask, self.image))
        if self.mask is not None and self.mask.getextrema()[1] == 0:  # pyright: ignore[reportOperatorIssue]
            raise MaskError("The mask marks nothing: no pixel is set to be edited; mark the region to change.")
        if len(self.references) > MAX_REFERENCES:
            raise InputError(f"{len(self.references)} references were given; one reference is supported.")
        if self.refine_mask and self.mask is None:
            raise MaskError("refine_mask was asked for without a mask; give a mask or leave refine_mask off.")
        return self


class RoutingDecision(Record):
    """Which experts an edit uses, and why."""

    weights: Mapping[str, float]
    """Weight per chosen expert, summing to 1; "base" stands for no expert."""
    probabilities: Mapping[str, float] = Field(default_factory=dict)
    """Probability per expert of the set, before top-k; empty where the router has none to give."""
    feasible: float = 1.0
    """Probability that the instruction applies to the picture at all."""
    entropy: float = 0.0
    """Entropy of `probabilities`, in nats."""
    router: str
    """Which router decided: "rules", "fixed", "transformer"."""
    reason: str
    """Why, as a sentence for a person."""


def unknown_expert(name: str, known: Collection[str]) -> UnknownExpertError:
    """The error for an expert that a set does not have; `known` are the set's experts."""
    return UnknownExpertError(
        f"There is no expert {name!r}; the experts are {', '.join(known) or 'none'} and {BASE!r}."
    )


class BatchSlot(Record):
    """One edit's place in a batch; a replay needs the shapes beside it to repeat every rounding."""

    steps: int
    """Denoising steps of that slot."""
    weights: Mapping[str, float]
    """Experts of that slot."""
    masked: bool = False
    """Whether that slot had a mask, which adds the base to a mixture."""


class FilterCandidate(Record):
    """One noise that an early filter tried."""

    seed: int
    """Its seed."""
    steps: int
    """Steps done at its last preview."""
    score: Annotated[float, Field(ge=0, le=1)] | None = None
    """The judge's overall score of that preview; None where there is none."""
    error: str | None = None
    """Why there is no score, as a sentence."""
    preview_sha256: str
    """Hash of that preview's pixels and size."""


class FilterLook(Record):
    """One time that the judge looked; which noises shared the steps before it decides how those were rounded."""

    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    """Steps that every noise still in the race had done."""
    alive: Annotated[tuple[int, ...], Field(min_length=1, max_length=MAX_CANDIDATES)]
    """Indices of those noises, in the order in which they stood in their batch."""


class FilterTrace(Record):
    """What an early filter saw and chose."""

    strategy: FilterStrategy
    """How noises were dropped."""
    preview_steps: int
    """Steps before the last look that was planned."""
    candidates: tuple[FilterCandidate, ...]
    """Every noise that was tried."""
    looks: tuple[FilterLook, ...]
    """Every look that was taken."""
    chosen: int
    """Index of the candidate that was finished."""
    exited_early: bool = False
    """Whether it was so good that looks were left out."""
    nfe: int
    """Transformer evaluations until the choice was made, all candidates together."""
    judge: Mapping[str, str]
    """Who judged: the fields of `careedit.scoring.JudgeIdentity`."""
    judge_seconds: float
    """Wall-clock seconds that the judge took."""
    degraded: str | None = None
    """What kept the judge from choosing, as a sentence's part; the best so far, at first the first seed, went on."""

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
    """All that is needed to understand an edit and to replay it bit for bit."""

    version: Literal[1] = 1
    """Format version of this record."""
    expert_set: str
    """Name of the expert set."""
    expert_set_sha256: str
    """Hash of the expert set: base, experts, router and defaults."""
    instruction: str
    """The instruction as used."""
    prompt: str
    """The in-context prompt that the base saw."""
    image_sha256: str
    """Hash of the source's decoded pixels and size."""
    mask_sha256: str | None = None
    """Hash of the mask's decoded pixels, if there was one."""
    reference_sha256: tuple[str, ...] = ()
    """Hashes of the references' decoded pixels."""
    routing: RoutingDecision
    """The experts and why."""
    application: Literal["merged", "shared"]
    """How the adapters were applied."""
    seed: int
    """The seed of this image's noise."""
    steps: int
    """Denoising steps done."""
    guidance: float | None
    """Guidance scale, None where the base takes none."""
    refine_mask: bool = False
    """Whether the mask was refined."""
    panel: tuple[int, int]
    """Width and height of one panel, in pixels."""
    nfe: int
    """Transformer evaluations spent on this image (one per expert and step), its filter's previews included."""
    batch: tuple[BatchSlot, ...]
    """Every slot of the batch that this image was made in, in order."""
    slot: int
    """This image's index in `batch`."""
    device: str
    """Device type, e.g. "cpu"."""
    dtype: str
    """Number format of the weights, e.g. "float32"."""
    runtime: str
    """What computed: torch's version and the processor's or GPU's kind; another one may round differently."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads of torch on a CPU, which shape its sums and so its rounding; None on a GPU."""
    seconds: Mapping[str, float]
    """Wall-clock seconds per stage, shared by the batch's images: "route", "prepare" (with an early filter "filter",
    the previews and the judge), "denoise", "finish"."""
    filter: FilterTrace | None = None
    """What the early filter saw and chose; None where none was asked for, or there was nothing to choose from."""
    degradations: tuple[str, ...] = ()
    """What did not go as asked, e.g. "router: low confidence, base used"."""

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
    """RGB pictures of the source's size."""
    traces: tuple[EditTrace, ...]
    """One trace per image, in the same order."""
    previews: tuple[tuple[Image.Image, ...], ...] = ()
    """Per image the last preview of each candidate of its early filter, in the trace's order and at the panel's scale."""

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
