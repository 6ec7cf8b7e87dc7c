"""The bodies of the edit route: which fields there are, what they may hold, and which of OpenAI's are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from careedit.records import (
    MAX_IMAGES,
    MAX_INSTRUCTION_CHARACTERS,
    MAX_SEED,
    MAX_STEPS,
    EarlyFilter,
    EditTrace,
)
from careedit.scoring import Score
from careedit_deployments.edits.output import OutputFormat, Quality

Text = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""One line of text."""

UNSUPPORTED: Mapping[str, str] = {
    "style": "say the style in the prompt",
    "markup": "draw nothing on the picture; mark the region with a mask",
    "complexity": "there is no planning to be set; use quality or steps",
    "frame_count": "an edit is a still picture",
    "frame_duration_ms": "an edit is a still picture",
    "svg": "an edit is a picture of pixels",
    "negative_prompt": "say in the prompt what is to change",
    "strength": "say in the prompt how much is to change, or give a mask",
    "image": "a JSON body names its pictures under images",
    "image_url": "a form has its pictures as files under image, a JSON body under images",
}
"""Fields of OpenAI's and of its neighbours' that this server does not have, and what to do instead."""

ALIASES: Mapping[str, Quality] = {"standard": "auto", "hd": "high"}
"""DALL-E's words for quality, which clients still send."""


class Body(BaseModel):
    """Base of every body of a request: frozen, no unknown fields; null is as good as absent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class EditFields(Body):
    """The fields of an edit that are no pictures; the same in a form and in JSON."""

    prompt: Annotated[str, StringConstraints(min_length=1, max_length=MAX_INSTRUCTION_CHARACTERS)]
    """What to change, in words."""
    model: Text | None = None
    """Name of an arm or of an expert set; absent: the traffic's split decides."""
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 1
    """How many images; image i starts from the noise of `seed + i`."""
    size: Annotated[str, StringConstraints(pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$")] = "auto"
    """"auto": the source's size. WIDTHxHEIGHT: the result is scaled to it. Where its proportions are not the source's, the edit
    lies in the middle and its edge is repeated around it; under `http.compatibility: strict` such a size is refused."""
    quality: Literal["low", "medium", "high", "auto", "standard", "hd"] = "auto"
    """What it means is configured; a request's own `steps` and `early_filter` come first. "standard" is auto, "hd" high."""
    output_format: OutputFormat = "png"
    """Format of the images."""
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    """Quality of a JPEG or WebP, 100 the best. Absent: JPEG 95, WebP without loss."""
    stream: bool = False
    """Whether the answer is a stream of events."""
    partial_images: Annotated[int, Field(ge=0, le=3)] = 0
    """Previews per image while it is made; only in a stream."""
    background: Literal["auto", "opaque"] = "auto"
    """A result has no transparent pixel."""
    response_format: Literal["b64_json", "url"] = "b64_json"
    """"b64_json": pictures come in the answer. "url": each has an address, good for `state.file_ttl_s`."""
    input_fidelity: Literal["low", "high"] | None = None
    """Taken, and changes nothing: what an edit does not change is the source's own."""
    moderation: Literal["auto", "low"] | None = None
    """Taken, and changes nothing: this server moderates nothing."""
    user: Text | None = None
    """Who asks, in the client's words: a user stays on one arm."""
    safety_identifier: Text | None = None
    """As `user`, which it replaces."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    """careedit: seed of the first image's noise; absent: drawn, and stated in the trace."""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """careedit: denoising steps; absent: by `quality`."""
    guidance: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None
    """careedit: guidance scale, for a base that takes one."""
    expert: str | dict[str, Annotated[float, Field(gt=0, le=1)]] = "auto"
    """careedit: "auto" lets the router choose; a name fixes one expert ("base": none), an object a mixture's weights."""
    top_k: Annotated[int, Field(ge=1, le=64)] | None = None
    """careedit: how many experts the router may mix."""
    refine_mask: bool = False
    """careedit: whether a coarse mask is fitted to the object that it covers."""
    early_filter: EarlyFilter | None = None
    """careedit: several noises are tried and a judge says which is finished; a strategy's name stands for its defaults."""
    session: Text | None = None
    """careedit: a session whose next turn this edit is. It has the source; a picture that is sent is the reference."""

    @field_validator("early_filter", mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"strategy": value} if isinstance(value, str) else value

    @property
    def level(self) -> Quality:
        """`quality` in the configuration's words."""
        return ALIASES.get(self.quality, self.quality)  # type: ignore[arg-type]  # every other word is one of them

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken and changes nothing here, a sentence each."""
        notes = []
        if self.quality in ALIASES:
            notes.append(f"quality {self.quality} is {self.level} here.")
        if self.input_fidelity is not None:
            notes.append("input_fidelity changes nothing here: what an edit does not change is the source's own.")
        if self.moderation is not None:
            notes.append("moderation changes nothing here: this server moderates nothing.")
        return tuple(notes)


class ImageRef(Body):
    """A picture in a JSON body."""

    image_url: Annotated[str, StringConstraints(min_length=1)] | None = None
    """A data URL, `data:image/png;base64,...`, or the bare base64, read as browsers read them (white space, no padding,
    the URL-safe alphabet). This server fetches nothing from elsewhere."""
    file_id: str | None = None
    """Refused: this server keeps no files."""


class EditBody(EditFields):
    """`POST /v1/images/edits` as JSON."""

    images: Annotated[list[ImageRef], Field(max_length=16)] = []
    """The source, then as many references as the base takes."""
    mask: ImageRef | None = None
    """Where alpha is 0 the source may change; of the source's size."""


class InputDetails(BaseModel):
    """Input tokens by kind."""

    image_tokens: int
    """Of the source and the references."""
    text_tokens: int
    """Of the prompt."""


class OutputDetails(BaseModel):
    """Output tokens by kind."""

    image_tokens: int
    """Of the results."""
    text_tokens: int = 0
    """Always 0."""


class Usage(BaseModel):
    """How much went in and came out. An image token is a square of 16x16 pixels of a panel; a text token is a word or a
    punctuation mark. What an edit costs is `nfe` in its trace: these numbers do not grow with steps."""

    input_tokens: int
    """All of the input's."""
    input_tokens_details: InputDetails
    """By kind."""
    output_tokens: int
    """All of the output's."""
    output_tokens_details: OutputDetails
    """By kind."""
    total_tokens: int
    """Both together."""


def _is_none(value: object) -> bool:
    return value is None


class ImageData(BaseModel):
    """One result."""

    b64_json: Annotated[str | None, Field(exclude_if=_is_none)] = None
    """The file, base64; absent where `response_format` is "url"."""
    url: Annotated[str | None, Field(exclude_if=_is_none)] = None
    """Where the file can be fetched without a key until it expires; only where `response_format` is "url"."""


class EditReport(BaseModel):
    """What careedit adds to OpenAI's answer."""

    id: str
    """Id of the edit, for feedback."""
    arm: str
    """Who edited."""
    session: str | None = None
    """The session, if the edit was a turn of one."""
    turn: str | None = None
    """Its turn."""
    traces: list[EditTrace]
    """Per image how it was made: enough to make it again."""
    notes: tuple[str, ...] = ()
    """What was taken and changes nothing here, and how a size of other proportions was filled, a sentence each."""


class ImagesResponse(BaseModel):
    """The answer to an edit."""

    created: int
    """Unix time."""
    data: list[ImageData]
    """The results, in the order of their seeds."""
    background: Literal["opaque"] = "opaque"
    """Results have no transparent pixel."""
    output_format: OutputFormat
    """Their format."""
    quality: Quality
    """As asked for."""
    size: str
    """WIDTHxHEIGHT of the results."""
    safety_identifier: str | None = None
    """`safety_identifier`, or `user`, as it was given."""
    usage: Usage
    """How much went in and came out."""
    careedit: EditReport
    """Who edited, and how."""


class ScoreAnswer(BaseModel):
    """The answer to `POST /v1/scores`."""

    scores: list[Score]
    """One per pair, in their order."""
