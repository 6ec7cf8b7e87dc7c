"""The nouns of evaluation: one frozen, strict record each, the same in Python, on disk and between workers.

A `Benchmark` gives `Sample`s, an editor makes an `EditRow` of each, a `Metric` measures `ScoreItem`s and gives
`Measurement`s, which are kept as `ScoreRow`s. What was not measured is an error, never a number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from pydantic import Field, field_validator, model_validator

from careedit.errors import InputError
from careedit.files import json_digest
from careedit.record import Record
from careedit_eval.pictures import PictureRef

if TYPE_CHECKING:
    from careedit_eval.metrics.base import ScoreItem

Align = Literal["none", "canvas"]
"""How a source lies on its target: pixel on pixel, or somehow on the target's canvas (`careedit_eval.alignment`)."""
Better = Literal["higher", "lower", "neither"]
Scalar = str | int | float | bool


class Sample(Record):
    """One row of a benchmark: an edit that is wanted, and what is known of its result."""

    id: str = Field(min_length=1)
    """The id of the sample, unique within the benchmark."""
    kind: str
    """The kind of edit, such as "Add" or "Remove", by which results are grouped."""
    instruction: str
    """The instruction that says what to change."""
    source: PictureRef
    """The image before the edit."""
    target: PictureRef | None = None
    """The picture that is wanted; None where the benchmark has none."""
    mask: PictureRef | None = None
    """Where the edit lies; transparent = edit, or white = edit where nothing is transparent."""
    mask_given: bool = False
    """Whether the editor sees the mask too; metrics always do."""
    references: tuple[PictureRef, ...] = ()
    """Pictures that the edit takes something from."""
    texts: Mapping[str, str] = Field(default_factory=dict)
    """Texts about the pictures by name: "source_caption", "target_caption", and others that the data set has."""
    group: str
    """What intervals are over: rows on one source picture, or of one session, share it."""
    turn: int = 1
    """Turn of its session, from 1."""
    previous: str | None = None
    """Multi-turn: id of the sample whose *edited* picture is this one's source; None: `source` is."""
    scored: bool = True
    """Whether it is measured, or only leads to a later turn."""
    align: Align = "none"
    """How source and target lie on each other."""
    extras: Mapping[str, Scalar] = Field(default_factory=dict)
    """What else the data set says of the row."""
    problem: str | None = None
    """Why the row cannot be edited, as a sentence that names its shard and number; None: it can. It is an error in every
    set's results, and no reason to stop. Not part of the fingerprint, as what it is about already is."""

    @property
    def trouble(self) -> str | None:
        """Why the row, or one of its pictures, cannot be had; None where nothing is missing."""
        pictures = (self.source, self.target, self.mask, *self.references)
        found = [self.problem, *(picture.missing for picture in pictures if picture is not None)]
        return " ".join(dict.fromkeys(why for why in found if why is not None)) or None

    @property
    def input_sha256(self) -> str:
        """Hash of all that an editor sees of it (of a later turn: without the picture that the turn before made)."""
        return json_digest(
            {
                "source": self.source.sha256,
                # The place of a source on its canvas depends on the target and the mask.
                "canvas": [self.target and self.target.sha256, self.mask and self.mask.sha256]
                if self.align == "canvas"
                else None,
                "mask": self.mask.sha256 if self.mask is not None and self.mask_given else None,
                "references": [reference.sha256 for reference in self.references],
                "instruction": self.instruction,
            }
        )

    @property
    def content_sha256(self) -> str:
        """Hash of everything in it, pictures by their bytes wherever these lie."""
        data = self.model_dump(exclude={"source", "target", "mask", "references", "problem"})
        for name in ("source", "target", "mask"):
            picture: PictureRef | None = getattr(self, name)
            data[name] = picture and picture.sha256
        return json_digest(data | {"references": [reference.sha256 for reference in self.references]})


class Output(Record):
    """One number that a metric gives."""

    name: str = Field(min_length=1)
    """Unique among the metrics of a suite: "clip_i", "vqa_followed"."""
    better: Better
    """Whether higher or lower values are better."""
    passes: bool = False
    """Whether it is 0 or 1, failed or passed: then its intervals are score intervals."""
    unit: str = ""
    """"s", or nothing for a bare number."""
    information: bool = False
    """Whether it only informs: seconds of the store depend on when and where an edit was made, so they are neither tested
    nor gated. No part of a metric's key, as it does not change the number."""


class MetricSpec(Record):
    """The full identity of a metric: numbers may be compared only if it is equal."""

    name: str = Field(min_length=1)
    """"clip_i", "l1", "vqa"; what a suite calls it."""
    outputs: tuple[Output, ...] = Field(min_length=1)
    """The numbers it gives; one of the same name where there is but one."""
    protocol: str
    """Whose rules: "magicbrush-v1", "tiny-v1", "viescore-v1", or careedit's own."""
    backbone: str = "none"
    """The model, with the library that runs it: "open_clip ViT-B-32 openai"."""
    revision: str = "none"
    """Hash of its weights, or what an endpoint calls its version."""
    preprocessing: str = "none"
    """What becomes of a picture before it is measured."""
    reference: Literal["source", "target", "text", "source and text", "scene", "rival", "none"] = "none"
    """What the edit is measured against: CLIP-I to the source and CLIP-I to the target are two metrics."""
    text_field: str | None = None
    """Which of `Sample.texts`, or "instruction"."""
    dtype: str = "float64"
    """Number format of the model, or of the sums."""
    code_version: int = 1
    """Raised with every change that changes a number."""
    settings: Mapping[str, Scalar] = Field(default_factory=dict)
    """What else decides the numbers, e.g. the price of a GPU hour."""

    @property
    def key(self) -> str:
        """Stable hash of the whole identity."""
        content = self.model_dump()
        for output in content["outputs"]:
            del output["information"]
        return json_digest(content)


class EditRow(Record):
    """What became of one sample under one editor and seed: a picture or an error, never both."""

    edit_key: str
    """Content key: everything that decides the picture."""
    sample_id: str
    """The id of the sample."""
    kind: str
    """The kind of edit of the sample."""
    group: str
    """The group of the sample: rows on one source image."""
    arm: str
    """Who edited: the expert set's name in this run."""
    seed: int
    """The seed of the edit's noise."""
    picture: str | None = None
    """File of the picture, relative to the run's folder."""
    picture_sha256: str | None = None
    """The sha256 of the image file's bytes; None without an image."""
    alignment: str = "none"
    """How the source was placed on its canvas (`careedit_eval.alignment`)."""
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Wall-clock seconds of the edit alone, as its editor says; None where it does not."""
    nfe: int | None = Field(default=None, ge=0)
    """The number of evaluations of the transformer; None if it is not known."""
    judge_calls: int | None = Field(default=None, ge=0)
    """Questions to a judge by the early filter."""
    trace: str | None = None
    """The `EditTrace` as JSON; None if the editor has no trace."""
    notes: tuple[str, ...] = ()
    """What a reader must know of the picture, e.g. that it has not its source's size."""
    error: str | None = None
    """Why the edit failed, as a sentence; None if it has an image."""

    @model_validator(mode="after")
    def _check_one(self) -> EditRow:
        if (self.picture is None) == (self.error is None) or (self.picture is None) != (self.picture_sha256 is None):
            raise InputError("An edit holds either a picture with its hash or an error; give exactly one of them.")
        return self


class Measurement(Record):
    """What a metric found: all of its numbers, an error in place of them, or that it does not apply."""

    values: Mapping[str, float] = Field(default_factory=dict)
    """Number per output of the metric."""
    error: str | None = None
    """Why the metric failed, as a sentence; None if it has values."""
    not_applicable: str | None = None
    """Why the metric says nothing of this sample, as a sentence. This is not an error. It depends on the sample
    alone, so it is the same for every editor."""
    notes: tuple[str, ...] = ()
    """What a reader must know of the numbers, e.g. "text truncated"."""

    @field_validator("values")
    @classmethod
    def _check_values(cls, values: Mapping[str, float]) -> Mapping[str, float]:
        for name, value in values.items():
            if not math.isfinite(value):
                raise InputError(f"The metric's {name} is {value}; a number that is none must be an error.")
        return dict(values)

    @model_validator(mode="after")
    def _check_one(self) -> Measurement:
        if bool(self.values) + (self.error is not None) + (self.not_applicable is not None) != 1:
            raise InputError(
                "A measurement holds numbers, an error, or why the metric does not apply; give exactly one of them."
            )
        return self


class ScoreRow(Measurement):
    """A measurement that is kept: one edit by one metric."""

    score_key: str
    """The key of the score, from the function `score_key`."""
    edit_key: str
    """The key of the edit that is measured."""
    sample_id: str
    """The id of the edited sample."""
    kind: str
    """The kind of edit of the sample."""
    group: str
    """The group of the sample: rows on one source image."""
    arm: str
    """The name of the arm that edited."""
    seed: int
    """The seed of the edit's noise."""
    metric: str
    """The name of the metric, as `MetricSpec.name`."""
    metric_key: str
    """The identity of the metric, as `MetricSpec.key`."""
    rival: str | None = None
    """Edit key of the edit that it was compared with."""


@runtime_checkable
class Benchmark(Protocol):
    """Rows to be edited, the same ones every time."""

    name: str
    """As in a suite: "humanedit-core"."""
    revision: str
    """Which state of the data set: a commit, a version, or "unversioned"."""

    @property
    def fingerprint(self) -> str:
        """sha256 over ids and contents of all rows: another one is another benchmark."""
        ...

    def rows(self) -> Iterator[Sample]:
        """The samples in a fixed order, a session's turns one after another; raises `BenchmarkError`."""
        ...

    def __len__(self) -> int:
        """Number of samples."""
        ...


@runtime_checkable
class Metric(Protocol):
    """Measures edits."""

    @property
    def spec(self) -> MetricSpec:
        """Its identity."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What a sample must have: "target", "mask", "rival", "scene", or "text:NAME"; see `lacking`."""
        ...

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """One measurement per item, in order; a function of the item alone, whatever else is in the batch."""
        ...


def lacking(metric: Metric, sample: Sample, *, rival: bool = False) -> tuple[str, ...]:
    """What `metric` needs and `sample` does not have: it does not apply, which is neither a score nor an error."""
    has = {f"text:{name}" for name, text in sample.texts.items() if text.strip()}
    has |= {name for name in ("target", "mask") if getattr(sample, name) is not None}
    has |= {"rival"} if rival else set()
    has |= {"scene"} if "scene" in sample.extras else set()
    return tuple(sorted(metric.needs - has))


def score_key(edit_key: str, spec: MetricSpec, rival: str | None = None) -> str:
    """Content key of a score: what was measured, by what, and against which other edit."""
    return json_digest({"edit": edit_key, "metric": spec.key, "rival": rival})


def fingerprint_of(samples: Iterable[Sample]) -> str:
    """sha256 over the contents of samples, in whatever order they come; a repeated id raises `InputError`."""
    found: dict[str, str] = {}
    for sample in samples:
        if sample.id in found:
            raise InputError(f"The id {sample.id!r} occurs twice; give every row an id of its own.")
        found[sample.id] = sample.content_sha256
    return json_digest(found)
