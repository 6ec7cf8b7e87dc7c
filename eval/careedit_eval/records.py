"""The records of evaluation. Each is frozen and strict, and has the same form in Python, on disk and between workers.

A `Benchmark` yields `Sample`s, an editor makes an `EditRow` of each, and a `Metric` measures `ScoreItem`s as
`Measurement`s, which are stored as `ScoreRow`s. A number that was not measured is an error, never a value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from pydantic import Field, field_validator, model_validator

from careedit.errors import InputError
from careedit.files import json_digest
from careedit.record import Record
from careedit_eval.pictures import PictureRef

if TYPE_CHECKING:
    from careedit_eval.metrics.base import ScoreItem

Align = Literal["none", "canvas"]
"""How a source is placed on its target: pixel by pixel, or on the target's canvas (`careedit_eval.alignment`)."""
Better = Literal["higher", "lower", "neither"]
Scalar = str | int | float | bool
Weights = Literal["official", "unknown", ""]
"""Weights that are known as the published ones, weights that are not, or none that a protocol names."""
UNREAD = "The judge's reply "
"""The beginning of the error of a reply that cannot be read, by which tables count such replies."""


class Sample(Record):
    """One row of a benchmark: a requested edit, and what is known about the right result."""

    id: str = Field(min_length=1)
    """The id of the sample, unique within the benchmark."""
    kind: str
    """The kind of edit, such as "Add" or "Remove", by which results are grouped."""
    instruction: str
    """The instruction that says what to change."""
    source: PictureRef
    """The image before the edit."""
    target: PictureRef | None = None
    """The right result; None if the benchmark has none."""
    mask: PictureRef | None = None
    """The area of the edit: transparent pixels, or white pixels if the mask has no transparency."""
    mask_given: bool = False
    """Whether the editor sees the mask. Metrics always see it."""
    references: tuple[PictureRef, ...] = ()
    """The reference images of the edit, in order."""
    texts: Mapping[str, str] = Field(default_factory=dict)
    """Texts about the images by name: "source_caption", "target_caption", and others of the data set."""
    group: str
    """The cluster for intervals: rows on one source image, or of one session, share it."""
    turn: int = 1
    """The number of the turn in its session, from 1."""
    previous: str | None = None
    """The id of the sample whose *edited* image is the source of this one; None if `source` is."""
    scored: bool = True
    """Whether the sample is measured. If not, it only leads to a later turn."""
    align: Align = "none"
    """How the source is placed on the target."""
    extras: Mapping[str, Scalar] = Field(default_factory=dict)
    """Other values of the data set for this row, by name."""
    problem: str | None = None
    """Why the row cannot be edited, as a sentence that names its shard and row number; None if it can. It becomes an error in
    the results of every set and does not stop the run. It is not part of the fingerprint, because its cause already is."""

    @property
    def trouble(self) -> str | None:
        """Why the row, or one of its images, cannot be used; None if nothing is missing."""
        pictures = (self.source, self.target, self.mask, *self.references)
        found = [self.problem, *(picture.missing for picture in pictures if picture is not None)]
        return " ".join(dict.fromkeys(why for why in found if why is not None)) or None

    @property
    def input_sha256(self) -> str:
        """The hash of everything that an editor sees, without the edited image of an earlier turn."""
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
    def measured_sha256(self) -> str:
        """The hash of what only metrics see: target, mask, texts and extras, and the place of the source on the target."""
        data = self.model_dump(include={"texts", "extras", "align"})
        return json_digest(
            data | {"target": self.target and self.target.sha256, "mask": self.mask and self.mask.sha256}
        )

    @property
    def content_sha256(self) -> str:
        """The hash of the whole content; images count by their bytes, wherever these are stored."""
        data = self.model_dump(exclude={"source", "target", "mask", "references", "problem"})
        for name in ("source", "target", "mask"):
            picture: PictureRef | None = getattr(self, name)
            data[name] = picture and picture.sha256
        return json_digest(data | {"references": [reference.sha256 for reference in self.references]})


class Output(Record):
    """One number that a metric returns."""

    name: str = Field(min_length=1)
    """The name of the number, such as "clip_i", unique among the metrics of a suite."""
    better: Better
    """Whether higher or lower values are better."""
    passes: bool = False
    """Whether the number is 0 or 1, for failed or passed. Then its intervals are score intervals."""
    unit: str = ""
    """The unit, such as "s"; empty for a plain number."""
    information: bool = False
    """Whether the number is only shown, and neither tested nor gated. Seconds in the store depend on when and where an edit
    was made. It is not part of a metric's key, because it does not change the number."""


class MetricSpec(Record):
    """The full identity of a metric. Numbers may be compared only if their identities are equal."""

    name: str = Field(min_length=1)
    """The name of the metric in suites, such as "clip_i", "l1" or "vqa"."""
    outputs: tuple[Output, ...] = Field(min_length=1)
    """The numbers that it returns. A single number has the name of the metric."""
    protocol: str
    """The protocol that it follows: "magicbrush-v1", "tiny-v1", "viescore-v1", or careedit's own."""
    backbone: str = "none"
    """The model and the library that runs it, such as "open_clip ViT-B-32 openai"."""
    revision: str = "none"
    """The hash of its weights, or the version that an endpoint reports."""
    weights: Weights = ""
    """Whether the weights are known as those that the protocol names (`careedit_eval.metrics.official`). It is not part of a
    metric's key, because the hash of the weights is."""
    preprocessing: str = "none"
    """How an image is processed before it is measured."""
    reference: Literal["source", "target", "reference", "text", "source and text", "scene", "rival", "none"] = "none"
    """What the edit is compared with. CLIP-I to the source and CLIP-I to the target are two metrics."""
    text_field: str | None = None
    """The name of the text in `Sample.texts`, or "instruction"; None if no text is used."""
    dtype: str = "float64"
    """The number format of the model, or of the sums."""
    code_version: int = 1
    """The version of the code, raised with every change that changes a number."""
    settings: Mapping[str, Scalar] = Field(default_factory=dict)
    """Other settings that change the numbers, such as the price of a GPU hour."""

    @property
    def key(self) -> str:
        """The stable hash of the whole identity."""
        content = self.model_dump(exclude={"weights"})
        for output in content["outputs"]:
            del output["information"]
        return json_digest(content)


class EditFacts(Record):
    """Which edit a row is about."""

    edit_key: str
    """The content key of the edit: a hash of everything that its image depends on."""
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


class EditRow(EditFacts):
    """The edit of one sample by one editor with one seed: an image or an error, never both."""

    picture: str | None = None
    """The file of the image, relative to the store; None if the edit failed."""
    picture_sha256: str | None = None
    """The sha256 of the image file's bytes; None without an image."""
    alignment: str = "none"
    """How the source was placed on its canvas (`careedit_eval.alignment`)."""
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Wall-clock seconds of the edit alone; None if the editor does not report them."""
    nfe: int | None = Field(default=None, ge=0)
    """The number of evaluations of the transformer; None if it is not known."""
    judge_calls: int | None = Field(default=None, ge=0)
    """The number of questions that the early filter asked the judge; None if it is not known."""
    trace: str | None = None
    """The `EditTrace` as JSON; None if the editor has no trace."""
    notes: tuple[str, ...] = ()
    """Notes on the image, such as that its size differs from its source's."""
    error: str | None = None
    """Why the edit failed, as a sentence; None if it has an image."""

    @model_validator(mode="after")
    def _check_one(self) -> EditRow:
        if (self.picture is None) == (self.error is None) or (self.picture is None) != (self.picture_sha256 is None):
            raise InputError("An edit has either an image with its hash or an error; give exactly one of them.")
        return self


class JudgeAnswer(Record):
    """One answer of a judge behind a measurement, as the judge gave it."""

    about: str
    """What the answer is about: an aspect, the names of the marks, or the order of two edits."""
    asked: str
    """The question, or the name of the prompt where the prompt is long."""
    reply: str | None = None
    """The whole text of the reply, or the numbers of a judge that writes none; None if no reply came."""
    error: str | None = None
    """Why no reply came, as a sentence; None if one did."""


class Measurement(Record):
    """The result of a metric: all of its numbers, an error, or the reason why it does not apply."""

    values: Mapping[str, float] = Field(default_factory=dict)
    """The numbers by output of the metric; empty without a result."""
    error: str | None = None
    """Why the metric failed, as a sentence; None if it has values."""
    not_applicable: str | None = None
    """Why the metric does not apply to this sample, as a sentence. This is not an error. It depends on the sample only, so it
    is the same for every editor."""
    absent: Mapping[str, str] = Field(default_factory=dict)
    """The outputs that do not apply to this sample although others do, with the reason. This too depends on the sample only."""
    answers: tuple[JudgeAnswer, ...] = ()
    """The answers of a judge behind the numbers or the error; the store keeps them in files of their own."""
    notes: tuple[str, ...] = ()
    """Notes on the numbers, such as "text truncated"."""

    @field_validator("values")
    @classmethod
    def _check_values(cls, values: Mapping[str, float]) -> Mapping[str, float]:
        for name, value in values.items():
            if not math.isfinite(value):
                raise InputError(
                    f"The metric's {name} is {value}, which is not a finite number; report an error instead."
                )
        return dict(values)

    @model_validator(mode="after")
    def _check_one(self) -> Measurement:
        if bool(self.values) + (self.error is not None) + (self.not_applicable is not None) != 1:
            raise InputError(
                "A measurement has numbers, an error, or the reason why the metric does not apply; give exactly one of them."
            )
        return self


class ScoreRow(EditFacts, Measurement):
    """A stored measurement of one edit by one metric."""

    score_key: str
    """The key of the score, from the function `score_key`."""
    metric: str
    """The name of the metric, as `MetricSpec.name`."""
    metric_key: str
    """The identity of the metric, as `MetricSpec.key`."""
    rival: str | None = None
    """The key of the edit that it was compared with; None for metrics of a single edit."""
    measured_sha256: str | None = None
    """The hash of what only metrics see of the sample, as `Sample.measured_sha256`; None in rows of older versions."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a table needs of a `ScoreRow`: a run holds every score in memory, so each one is small."""

    score_key: str
    """The key of the score, as `ScoreRow.score_key`."""
    values: Mapping[str, float] = field(default_factory=dict)
    """The numbers by output of the metric; empty without a result."""
    error: str | None = None
    """Why the metric failed, as a sentence; None if it did not."""
    not_applicable: str | None = None
    """Why the metric does not apply to this sample; None if it does."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """The outputs that do not apply to this sample, with the reasons."""
    notes: tuple[str, ...] = ()
    """Notes on the numbers, as in `Measurement`."""
    measured_sha256: str | None = None
    """The hash of what only metrics see of the sample; None in rows of older versions."""

    def is_of(self, sample: Sample) -> bool:
        """Whether target, mask, texts and extras of the sample are those that were measured."""
        return self.measured_sha256 in (None, sample.measured_sha256)


class AnswerRow(Record):
    """The stored answers of a judge behind one score."""

    score_key: str
    """The key of the score, from the function `score_key`."""
    answers: tuple[JudgeAnswer, ...]
    """The answers, in the order in which they were asked for."""


@runtime_checkable
class Benchmark(Protocol):
    """A data set of samples. It yields the same samples every time."""

    name: str
    """The name in suites, such as "humanedit-core"."""
    revision: str
    """The revision of the data set: a commit, a version, or "unversioned"."""

    @property
    def fingerprint(self) -> str:
        """The sha256 over ids and contents of all rows. With another fingerprint it is another benchmark."""
        ...

    def rows(self) -> Iterator[Sample]:
        """The samples in a fixed order, the turns of a session in sequence. Raises `BenchmarkError`."""
        ...

    def __len__(self) -> int:
        """The number of samples."""
        ...


@runtime_checkable
class Metric(Protocol):
    """Measures edits, one or several numbers each."""

    @property
    def spec(self) -> MetricSpec:
        """The identity of the metric."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What a sample must have: "target", "mask", "rival", "scene" or "text:NAME"; see `lacking`."""
        ...

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """One measurement per item, in order. It must depend on the item only, not on the rest of the batch."""
        ...


def lacking(metric: Metric, sample: Sample, *, rival: bool = False) -> tuple[str, ...]:
    """What `metric` needs and `sample` does not have. Then the metric does not apply, which is not an error."""
    has = {f"text:{name}" for name, text in sample.texts.items() if text.strip()}
    has |= {name for name in ("target", "mask") if getattr(sample, name) is not None}
    has |= {"rival"} if rival else set()
    has |= {"scene"} if "scene" in sample.extras else set()
    return tuple(sorted(metric.needs - has))


def score_key(edit_key: str, spec: MetricSpec, rival: str | None = None) -> str:
    """The content key of a score, from the edit, the metric, and the edit that it is compared with."""
    return json_digest({"edit": edit_key, "metric": spec.key, "rival": rival})


def fingerprint_of(samples: Iterable[Sample]) -> str:
    """The sha256 over the contents of samples, independent of their order. A repeated id raises `InputError`."""
    found: dict[str, str] = {}
    for sample in samples:
        if sample.id in found:
            raise InputError(f"The id {sample.id!r} occurs twice; give every row its own id.")
        found[sample.id] = sample.content_sha256
    return json_digest(found)
