"""Which of two edits a judge prefers in writing: PVC-Judge of GEditBench v2 (arXiv 2603.28547), or any judge with its prompts.

A published prompt is a YAML file with the system's message and blocks of text and images. The reply is a JSON object whose
"winner" is Image A, Image B or Tie. Unlike the published script, each pair is asked about in both orders, and a reply that
cannot be read is an error after one attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from PIL import Image
from pydantic import Field

from careedit.errors import CareEditError, InputError
from careedit.files import json_digest, read_yaml
from careedit.record import Record
from careedit.scoring.openai_answers import without_thought
from careedit.scoring.openai_http import EndpointConfig, Unanswered
from careedit.scoring.sent import settings_of
from careedit_eval.errors import MetricError
from careedit_eval.metrics.base import NotApplicableError, ScoreItem, ask_about
from careedit_eval.metrics.marking import json_objects
from careedit_eval.metrics.options import PreferenceOptions
from careedit_eval.metrics.writer import EndpointWriter, Message, Writer
from careedit_eval.records import UNREAD, JudgeAnswer, Measurement, Metric, MetricSpec, Output

MAX_TOKENS = 1024
"""The maximum length of an answer, as in the published script."""
WINNERS = {"image a": 1.0, "image_a": 1.0, "a": 1.0, "image b": 0.0, "image_b": 0.0, "b": 0.0, "tie": 0.5, "equal": 0.5}
"""What a reply may name as the winner, and how much of a win that is for Image A."""
SEPARATORS = {("text", "image"): "", ("image", "image"): "\n\n"}
"""What is written between two blocks; a line break between all others."""
ORDERS = ("this edit is Image A", "this edit is Image B")
_TEMPLATES = ImmutableSandboxedEnvironment(undefined=StrictUndefined)


class ImageBlock(Record):
    """An image of a prompt."""

    source: Literal["input_image", "edited_images"]
    """Whether it is the source, or one of the edits."""
    index: Literal[0, 1] | None = None
    """Which of the edits it is; None for the source."""


class Block(Record):
    """A block of a prompt: a text or an image."""

    text: str | None = None
    """A text, in which {{ instruction }} is replaced; None for an image."""
    image: ImageBlock | None = None
    """An image; None for a text."""


class PairPrompt(Record):
    """A prompt as GEditBench v2 publishes it."""

    prompt_id: str = ""
    """The name of the prompt."""
    version: str = ""
    """The version of the prompt."""
    system_prompt: str = ""
    """The system's message, which is sent before the user's; empty sends none."""
    user_prompt: tuple[Block, ...]
    """The blocks of the user's message, in order."""
    metadata: Mapping[str, Any] = Field(default_factory=dict)
    """Notes of the publisher, which change nothing."""

    @classmethod
    def read(cls, path: str) -> PairPrompt:
        """Read a file. Raises `InputError` unless it shows the source and both edits, once each."""
        found = cls(**read_yaml(Path(path).expanduser(), "prompt"))
        images = [(one.image.source, one.image.index) for one in found.user_prompt if one.image is not None]
        wanted = [("input_image", None), ("edited_images", 0), ("edited_images", 1)]
        if sorted(images, key=str) != sorted(wanted, key=str) or any(
            (one.text is None) == (one.image is None) for one in found.user_prompt
        ):
            raise InputError(
                f"The prompt {path!r} does not show the source and both edits once each; give a pairwise prompt of GEditBench v2."
            )
        return found

    def message(self, instruction: str, source: Image.Image, edits: Sequence[Image.Image]) -> Message:
        """The user's message about two edits. Raises `MetricError` if a text uses anything else than the instruction."""
        parts: list[Image.Image | str] = []
        before = None
        for block in self.user_prompt:
            kind = "text" if block.image is None else "image"
            between = SEPARATORS.get((before, kind), "\n") if before is not None else ""
            parts += [between] if between else []
            if block.image is not None:
                parts.append(source if block.image.index is None else edits[block.image.index])
            else:
                try:
                    parts.append(_TEMPLATES.from_string(block.text or "").render(instruction=instruction))
                except TemplateError as error:
                    raise MetricError(
                        f"A text of the prompt cannot be filled in ({error}); correct the prompt."
                    ) from error
            before = kind
        return parts


class WrittenPreference:
    """1, 0.5 or 0: the edit wins against its rival in both orders, the orders disagree or tie, or it loses in both."""

    needs = frozenset({"rival"})

    def __init__(self, prompt: PairPrompt, writer: Writer, *, name: str = "pvc") -> None:
        """`writer` sends the prompt's system message."""
        self.prompt, self.writer, self.name = prompt, writer, name

    @cached_property
    def spec(self) -> MetricSpec:
        """See `careedit_eval.records.Metric`."""
        return MetricSpec(
            name=self.name,
            outputs=(
                Output(name=f"{self.name}_win", better="higher"),
                Output(name=f"{self.name}_consistent", better="neither", passes=True),
            ),
            protocol="pvc-1",
            backbone=f"{self.writer.backend} {self.writer.model}",
            revision=self.writer.revision,
            preprocessing="edits in their own size",
            reference="rival",
            text_field="instruction",
            dtype=settings_of(self.writer).get("dtype", "as served"),
            settings={
                **settings_of(self.writer),
                "prompt": json_digest(self.prompt.model_dump(mode="json", exclude={"metadata"})),
            },
        )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`; two messages per item."""

        def ask(asked: list[tuple[Message, Message]]) -> list[Measurement]:
            replies = self.writer.write([message for both in asked for message in both])
            return [self._measurement(replies[at : at + 2]) for at in range(0, len(replies), 2)]

        return ask_about(batch, self._messages, ask, resizes=False)

    def _messages(self, item: ScoreItem) -> tuple[Message, Message]:
        if item.sample.references:
            raise NotApplicableError("sees no reference image")
        source, words = item.pictures.source, item.sample.instruction
        edits = (item.edited, item.rival)
        return self.prompt.message(words, source, edits), self.prompt.message(words, source, edits[::-1])

    def _measurement(self, replies: Sequence[str | CareEditError]) -> Measurement:
        answers = tuple(
            JudgeAnswer(
                about=order,
                asked=f"the prompt {self.prompt.prompt_id or self.name}",
                reply=None if isinstance(reply, CareEditError) else reply,
                error=str(reply) if isinstance(reply, CareEditError) else None,
            )
            for order, reply in zip(ORDERS, replies, strict=True)
        )
        try:
            first, second = (_raise(reply) for reply in replies)
            as_a, as_b = read_winner(first), 1 - read_winner(second)
        except CareEditError as error:
            return Measurement(error=str(error), answers=answers)
        values = {
            f"{self.name}_win": as_a if as_a == as_b else 0.5,
            f"{self.name}_consistent": float(as_a == as_b),
        }
        return Measurement(values=values, answers=answers)


def read_winner(reply: str) -> float:
    """1 if a reply names Image A as the winner, 0 for Image B, 0.5 for a tie. Raises `MetricError` for any other reply."""
    try:
        answer = without_thought(reply) if reply.strip() else reply
        named = [one["winner"] for one in json_objects(answer) if "winner" in one]
    except (Unanswered, ValueError, RecursionError):
        named = []
    if len(named) == 1 and isinstance(named[0], str) and named[0].strip().lower() in WINNERS:
        return WINNERS[named[0].strip().lower()]
    said = " ".join(reply.split())[:80]
    raise MetricError(
        f"{UNREAD}{said!r} names no winner among Image A, Image B and Tie; use a judge that keeps to JSON."
    )


def pvc(options: PreferenceOptions) -> Metric:
    """The preference of a judge that writes, from its options. Raises `InputError` or `MetricError`."""
    prompt = PairPrompt.read(options.prompts)
    if (options.local is None) == (options.endpoint is None):
        raise MetricError("pvc needs one judge: give `local`, or the fields of an endpoint under `endpoint`.")
    if options.local is None:
        config = EndpointConfig(**(options.endpoint or {}))
        return WrittenPreference(prompt, EndpointWriter(config, max_tokens=MAX_TOKENS, system=prompt.system_prompt))
    from careedit_eval.metrics.local_writer import local_writer

    return WrittenPreference(prompt, local_writer(options.local, max_tokens=MAX_TOKENS, system=prompt.system_prompt))


def _raise(reply: str | CareEditError) -> str:
    if isinstance(reply, CareEditError):
        raise reply
    return reply
