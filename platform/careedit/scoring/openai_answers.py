"""Probabilities from the replies of chat endpoints; a reply that cannot be read raises an error."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from careedit.scoring.openai_http import Unanswered

MIN_MASS = 0.1
"""Minimum probability of yes and no together: below it the model was about to say something else."""
TOP_LOGPROBS = 20
"""The maximum that OpenAI, vLLM and SGLang give."""

WRITE_JSON = ' Give the answer as JSON only: {"answer": "yes" or "no", "confidence": the probability from 0 to 1 that it is right}.'
"""Ends a question that is answered in JSON."""
RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "answer": {"type": "string", "enum": ["yes", "no"]},
                "confidence": {"type": "number", "minimum": 0, "maximum": 1},
            },
            "required": ["answer", "confidence"],
            "additionalProperties": False,
        },
    },
}
"""The `response_format` that asks for `_Written`."""


_MARK = r"(?:\w+:)?(?:think|thinking|thoughts?|reasoning|reflection|analysis)"
_THOUGHT_BEGINS = re.compile(rf"<{_MARK}(?:\s[^<>]*)?>|\[{_MARK}\]|◁{_MARK}▷|<\|begin_of_thought\|>", re.IGNORECASE)
_THOUGHT_ENDS = re.compile(rf"</{_MARK}\s*>|\[/{_MARK}\]|◁/{_MARK}▷|<\|end_of_thought\|>", re.IGNORECASE)


class _Token(BaseModel):
    token: str
    logprob: Annotated[float, Field(le=0.01)]  # some servers round a little past 0


class _Place(BaseModel):
    top_logprobs: list[_Token] = []


class _Logprobs(BaseModel):
    content: list[_Place] | None = None


class _Part(BaseModel):
    type: str = "text"
    text: str | None = None


class _Message(BaseModel):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: object = None
    reasoning: object = None

    @property
    def text(self) -> str:
        """The answer's text, without a thought that the endpoint returns in a field of its own."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content if part.type in ("text", "output_text"))
        return self.content or ""

    @property
    def thought(self) -> bool:
        """Whether the reply has a thought in addition to the answer."""
        return bool(self.reasoning_content or self.reasoning or isinstance(self.content, list))


class _Choice(BaseModel):
    message: _Message
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Reply(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]


class _Written(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    answer: Literal["yes", "no"]
    confidence: Annotated[float, Field(ge=0, le=1)]


def has_logprobs(reply: bytes) -> bool:
    """Whether a reply to a request for logprobs has any; raises `Unanswered` if it is not a chat completion."""
    return bool(_first_tokens(_choice(reply)))


def yes_by_logprobs(reply: bytes) -> float:
    """P(yes) among yes and no at the answer's first token; raises `Unanswered`.

    A word that is not among the listed tokens counts as 0: its probability is below the lowest one listed.
    """
    choice = _choice(reply)
    tokens = _first_tokens(choice)
    if not tokens:
        raise Unanswered('The endpoint gave no logprobs; set answers to "json" for it.')
    yes, no = (sum(math.exp(t.logprob) for t in tokens if _word(t.token) == word) for word in ("yes", "no"))
    if yes + no < MIN_MASS:
        likely = max(tokens, key=lambda t: t.logprob).token
        raise Unanswered(
            f"The model was about to answer {likely[:40]!r}, neither yes nor no; give one that follows orders, or set "
            'answers to "json" for one that thinks first.'
        )
    return yes / (yes + no)


def yes_by_json(reply: bytes) -> float:
    """P(yes) from a written answer and its confidence; raises `Unanswered`."""
    content = without_thought(text_of(reply))
    try:
        written = _Written.model_validate_json(content)
    except ValidationError:
        raise Unanswered(
            f"The model wrote {content[:80]!r}, not the JSON that it was asked for; give one that supports json_schema."
        ) from None
    return written.confidence if written.answer == "yes" else 1 - written.confidence


def text_of(reply: bytes) -> str:
    """What the model wrote; raises `Unanswered` for a refusal, a cut-off answer and a reply without a text."""
    choice = _choice(reply)
    if choice.finish_reason == "length":
        raise Unanswered(
            "The model's answer was cut off before its end; give one that answers in short JSON, or, for one that thinks "
            "first, more room by `extra: {max_tokens: ...}`."
        )
    text = choice.message.text
    if not text.strip():
        also = ", only a thought" if choice.message.thought else ""
        raise Unanswered(
            f"The model answered without a text{also}, not the JSON that it was asked for; give one that writes its answer."
        )
    return text


def without_thought(text: str) -> str:
    """The answer of a model that thinks first: the text after "<think>...</think>" and similar marks.

    The opening mark may be missing, because some chat templates put it into the prompt. Raises `Unanswered` for a thought
    that does not end and for one without an answer after it.
    """
    answer = _THOUGHT_ENDS.split(text)[-1].strip()
    if _THOUGHT_BEGINS.search(answer):
        raise Unanswered(
            "The model began to think and did not end; give it more room by `extra: {max_tokens: ...}`, or turn its "
            "thinking off."
        )
    if not answer:
        raise Unanswered("The model thought and gave no answer after it; give one that writes its answer.")
    return answer


def _choice(reply: bytes) -> _Choice:
    try:
        choice = _Reply.model_validate_json(reply).choices[0]
    except ValidationError:
        raise Unanswered(
            f"The endpoint's reply {reply[:60]!r} is not a chat completion; check that base_url is a chat API."
        ) from None
    if choice.message.refusal or choice.finish_reason == "content_filter":
        said = f": {choice.message.refusal[:120]!r}" if choice.message.refusal else ""
        raise Unanswered(f"The model refused to answer{said}; ask another judge about this picture.")
    return choice


def _first_tokens(choice: _Choice) -> list[_Token]:
    places = choice.logprobs.content if choice.logprobs is not None else None
    return places[0].top_logprobs if places else []


def _word(token: str) -> str:
    """A token's word: tokenizers mark spaces in their own ways, and models quote or end an answer in theirs."""
    return token.strip(" \t\r\n▁Ġ\"'`*.,!").casefold()
