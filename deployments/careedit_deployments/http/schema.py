"""The fields of an edit and of its response, their limits, and the fields of other APIs that are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from careedit.record import BaseRecord
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
from careedit_deployments.policy.contract import PolicyMark
from careedit_deployments.state.tenant_policy import Purpose

Text = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""One line of text."""

UNSUPPORTED: Mapping[str, str] = {
    "style": "name the style in the prompt",
    "markup": "send a mask for the region",
    "complexity": "use quality or steps",
    "frame_count": "the result of an edit is a still image",
    "frame_duration_ms": "the result of an edit is a still image",
    "svg": "the result of an edit is a pixel image",
    "negative_prompt": "say in the prompt what to change",
    "strength": "say in the prompt how much to change, or send a mask",
    "image": "a JSON body has its images in the field images",
    "image_url": "a form has its images as files in the field image, a JSON body in the field images",
}
"""Fields of OpenAI's and similar APIs that this server does not support, and what to do instead."""

ALIASES: Mapping[str, Quality] = {"standard": "auto", "hd": "high"}
"""Values of `quality` for DALL-E, which clients still send."""


class Answer(BaseRecord):
    """Base of every response. Unknown fields are ignored, so that a client can also read the responses of a newer server."""

    model_config = ConfigDict(strict=False, extra="ignore")


class ListAnswer(Answer):
    """Base of every answer that lists objects."""

    object: str = "list"
    """Type of the answer; always "list"."""


Page = TypeVar("Page", bound=ListAnswer)


def page_of(answer: Callable[..., Page], data: Sequence[Any], *, more: bool) -> Page:
    """A page of objects with ids: `answer` has `data`, `first_id`, `last_id` and `has_more`."""
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return answer(data=data, first_id=first, last_id=last, has_more=more)


class Body(BaseRecord):
    """Base of every request body. A field that is null counts as absent; a form's texts become numbers."""

    model_config = ConfigDict(strict=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class EditFields(Body):
    """The fields of an edit that are not images; they are the same in a form and in JSON."""

    prompt: Annotated[str, StringConstraints(min_length=1, max_length=MAX_INSTRUCTION_CHARACTERS)]
    """What to change, in plain language; 1 to 2,000 characters."""
    model: Text | None = None
    """Name of an arm or of an expert set. Default: the configured traffic split decides."""
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 1
    """Number of images to make, 1 to 16; default 1. Image i starts from the noise of `seed + i`."""
    size: Annotated[str, StringConstraints(pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$")] = "auto"
    """Size of the result. "auto" (default): the size of the source. WIDTHxHEIGHT: the result is scaled to it. If
    its proportions differ from the source, the edit is centered and its edge is repeated around it; under
    `http.compatibility: strict` such a size is refused."""
    quality: Literal["low", "medium", "high", "auto", "standard", "hd"] = "auto"
    """Preset of steps and early filter, as configured; default "auto". The fields `steps` and `early_filter` take
    precedence. "standard" means auto, "hd" means high."""
    output_format: OutputFormat = "png"
    """File format of the images; default png."""
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    """Quality of a JPEG or WebP file, 0 to 100, where 100 is the best. Default: 95 for JPEG, lossless for WebP."""
    stream: bool = False
    """Whether the answer is a stream of server-sent events. Default: false."""
    partial_images: Annotated[int, Field(ge=0, le=3)] = 0
    """Number of previews per image while it is made, 0 to 3; default 0. Only for a stream."""
    background: Literal["auto", "opaque"] = "auto"
    """Background of the result. It never has transparent pixels, so both values mean opaque; default auto."""
    response_format: Literal["b64_json", "url"] = "b64_json"
    """"b64_json" (default): the answer contains the images. "url": the answer contains an address for each image,
    which is valid for `state.file_ttl_s` seconds."""
    input_fidelity: Literal["low", "high"] | None = None
    """Accepted for compatibility, without effect: pixels that the edit does not change are those of the source."""
    moderation: Literal["auto", "low"] | None = None
    """Level of the server's content policy: "auto" (default) or "low". The server's configuration says which checks each of
    them has; without a content policy it has no effect."""
    user: Text | None = None
    """The client's name for the end user. All edits of one user go to the same arm."""
    safety_identifier: Text | None = None
    """Like `user`, which it replaces; give one of the two."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    """careedit: seed of the first image's noise, 0 to 2^63 - 1. Default: a random seed, which the trace contains.
    Set it to repeat an edit."""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    """careedit: number of denoising steps, 1 to 200. Default: set by `quality`."""
    guidance: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None
    """careedit: guidance scale, 0 to 1000, for a base that takes one. Default: the expert set's value."""
    expert: str | dict[str, Annotated[float, Field(gt=0, le=1)]] = "auto"
    """careedit: which experts edit. "auto" (default): the router chooses; a name: that expert; "base": no expert;
    an object: a mixture with these weights, which sum to 1."""
    top_k: Annotated[int, Field(ge=1, le=64)] | None = None
    """careedit: maximum number of experts that the router may mix, 1 to 64. Default: the expert set's value."""
    refine_mask: bool = False
    """careedit: whether to fit a coarse mask to the object that it covers. Default: false."""
    early_filter: EarlyFilter | None = None
    """careedit: try several noises and let a judge choose the one to finish. The name of a strategy means that
    strategy with its defaults. Default: set by `quality`."""
    candidate_images: bool = False
    """careedit: whether a stream also brings, if the edit has an early filter, what the judge saw last of each candidate.
    Default: false. Only for a stream."""
    session: Text | None = None
    """careedit: id of the session whose next turn this edit is. The session has the source; an image that is sent
    is the reference."""

    @field_validator("early_filter", mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"strategy": value} if isinstance(value, str) else value

    @property
    def level(self) -> Quality:
        """`quality` as in the configuration, without aliases."""
        return ALIASES.get(self.quality, self.quality)  # type: ignore[arg-type]  # every other value is one of them

    @property
    def end_user(self) -> str | None:
        """The client's name for the end user, from whichever field has it."""
        return self.safety_identifier or self.user

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each field that was accepted without effect."""
        notes = []
        if self.quality in ALIASES:
            notes.append(f"quality {self.quality} means {self.level} here.")
        if self.input_fidelity is not None:
            notes.append(
                "input_fidelity has no effect here: pixels that the edit does not change are those of the source."
            )
        return tuple(notes)


class ImageRef(Body):
    """An image in a JSON body."""

    image_url: Annotated[str, StringConstraints(min_length=1)] | None = None
    """A data URL, `data:image/png;base64,...`, or the bare base64. White space, missing padding and the URL-safe
    alphabet are accepted. This server does not fetch images from other servers."""
    file_id: str | None = None
    """Refused, because this server does not keep uploaded files."""


class EditBody(EditFields):
    """`POST /v1/images/edits` as JSON."""

    images: list[ImageRef] = Field(default=[], max_length=16)
    """The source, followed by as many references as the base takes; at most 16 images."""
    mask: ImageRef | None = None
    """Mask in the size of the source: where alpha is 0, the source may change. Default: the whole image may change."""


class InputDetails(Answer):
    """Number of input tokens of each kind."""

    image_tokens: int
    """Tokens of the source and the references."""
    text_tokens: int
    """Tokens of the prompt: words and punctuation marks."""


class OutputDetails(Answer):
    """Number of output tokens of each kind."""

    image_tokens: int
    """Tokens of the resulting images."""
    text_tokens: int = 0
    """Tokens of text in the output; always 0."""


class Usage(Answer):
    """Size of input and output in tokens. An image token is a square of 16x16 pixels of a panel; a text token is a
    word or a punctuation mark. These numbers do not grow with steps; the cost of an edit is `nfe` in its trace."""

    input_tokens: int
    """Number of all input tokens."""
    input_tokens_details: InputDetails
    """Number of input tokens of each kind."""
    output_tokens: int
    """Number of all output tokens."""
    output_tokens_details: OutputDetails
    """Number of output tokens of each kind."""
    total_tokens: int
    """Sum of input tokens and output tokens."""


def _is_none(value: object) -> bool:
    return value is None


class ImageData(Answer):
    """One image of the result."""

    b64_json: Annotated[str | None, Field(exclude_if=_is_none)] = None
    """The image file in base64; absent if `response_format` is "url"."""
    url: Annotated[str | None, Field(exclude_if=_is_none)] = None
    """Address of the image file, which needs no API key and expires; present only if `response_format` is "url"."""


class EditReport(Answer):
    """What careedit adds to OpenAI's answer."""

    id: str
    """Id of the edit; feedback refers to it."""
    arm: str
    """Name of the arm that made the edit."""
    session: str | None = None
    """Id of the session if the edit was a turn of one, else null."""
    turn: str | None = None
    """Id of the turn if the edit was a turn of a session, else null."""
    traces: list[EditTrace]
    """One trace per image: how it was made, with everything that a replay needs."""
    policy: Annotated[tuple[PolicyMark, ...], Field(exclude_if=lambda marks: not marks)] = ()
    """Marks of the server's content policy for the input and the images; absent without any."""
    purposes: tuple[Purpose, ...] = ()
    """What the server may use the edit for in addition to this answer: "shadow" (copies for shadow arms), "judging" (scores of
    the judge), "evaluation" (exports), "keep_source" (the result keeps the source's Content Credentials). A tenant's policy
    decides; empty: nothing."""
    notes: tuple[str, ...] = ()
    """Sentences about fields that had no effect, and about how a size of other proportions was filled. Empty by
    default."""


class ImagesResponse(Answer):
    """The answer to an edit, in OpenAI's format."""

    created: int
    """Time at which the answer was made, in Unix seconds."""
    data: list[ImageData]
    """The resulting images, in the order of their seeds."""
    background: Literal["opaque"] = "opaque"
    """Always opaque: results have no transparent pixels."""
    output_format: OutputFormat
    """File format of the images."""
    quality: Quality
    """The requested quality: low, medium, high or auto."""
    size: str
    """Size of the images in pixels, as WIDTHxHEIGHT."""
    safety_identifier: str | None = None
    """The `safety_identifier` or `user` of the request; null if it had neither."""
    usage: Usage
    """Size of input and output in tokens."""
    careedit: EditReport
    """What careedit adds: ids, arm, traces and notes."""


class ScoreAnswer(Answer):
    """The answer to `POST /v1/scores`."""

    scores: list[Score]
    """One score per pair, in the order of the pairs."""
