"""A rubric as a metric: a judge writes marks about each edit, and the rubric combines them.

A reply that cannot be read is an error of that edit, and it is counted; no mark is made up.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from PIL import Image

from careedit.errors import CareEditError
from careedit.scoring.openai_answers import without_thought
from careedit.scoring.openai_http import EndpointConfig, Unanswered
from careedit.scoring.sent import settings_of
from careedit_eval.errors import MetricError
from careedit_eval.metrics.base import NotApplicableError, ScoreItem, ask_about
from careedit_eval.metrics.options import JudgeOptions, LocalJudge, RubricOptions
from careedit_eval.metrics.rubric import Question, Reading, Rubric, load_rubric
from careedit_eval.metrics.writer import EndpointWriter, Message, Writer
from careedit_eval.records import UNREAD, JudgeAnswer, Measurement, Metric, MetricSpec

CODE_VERSION = 2
"""The version of this code, part of the identity of each rubric's metric."""
UNMARKED = frozenset({"09fedff78031c9bcf1222b45328a11c5caaf9f3aababdfcbb3da2d47e7cd9f13"})
"""Digests of rubrics that are not in the settings of their metric, because scores of before have none: vie-1."""
NUMBERS = {1: "no mark", 2: "no two marks", 3: "no three marks"}
Asked = tuple[Question, Message]


class RubricMetric:
    """The numbers of a rubric, by a judge that writes; one message per question and edit."""

    needs: frozenset[str] = frozenset()

    def __init__(self, rubric: Rubric, writer: Writer, *, passes: int = 1) -> None:
        """`rubric` has its prompts; each message is sent `passes` times with one seed after another."""
        self.rubric, self.writer, self.passes = rubric, writer, passes

    @cached_property
    def spec(self) -> MetricSpec:
        """See `careedit_eval.records.Metric`."""
        rubric = self.rubric
        own_size = rubric.edit_size == "own"
        settings = dict(settings_of(self.writer))
        if rubric.digest not in UNMARKED:
            settings["rubric"] = rubric.digest
        if self.passes > 1:
            settings["passes"] = str(self.passes)
        return MetricSpec(
            name=rubric.name,
            outputs=rubric.outputs,
            protocol=rubric.protocol,
            backbone=f"{self.writer.backend} {self.writer.model}",
            revision=self.writer.revision,
            preprocessing="edit in its own size" if own_size else "edit resized to the source's size, Pillow's bicubic",
            reference="source and text",
            text_field="instruction",
            dtype=settings.get("dtype", "as served"),
            code_version=CODE_VERSION,
            settings=settings,
        )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""

        def ask(asked: list[list[Asked]]) -> list[Measurement]:
            messages = [message for one in asked for _, message in one]
            turns = [iter(self.writer.write(messages, turn=turn)) for turn in range(self.passes)]
            return [
                _averaged([self._measurement([(question, next(replies)) for question, _ in one]) for replies in turns])
                for one in asked
            ]

        return ask_about(batch, self.messages, ask, resizes=self.rubric.edit_size == "source")

    def messages(self, item: ScoreItem) -> list[Asked]:
        """The questions about an edit with their messages. Raises `NotApplicableError` if no question applies."""
        row = row_of(item)
        asked = [
            one for one, holds in zip(self.rubric.questions, self.rubric.conditions, strict=True) if holds(row=row)
        ]
        marks = [mark for one in asked for mark in one.marks]
        if not asked:
            raise NotApplicableError(f"asks nothing about the kind {item.sample.kind!r}")
        twice = [mark for mark in marks if marks.count(mark) > 1]
        if twice:
            raise MetricError(f"Two questions of the rubric ask for {twice[0]!r}; correct their conditions.")
        return [(one, self._message(one, item, row)) for one in asked]

    def _message(self, question: Question, item: ScoreItem, row: Mapping[str, Any]) -> Message:
        name = question.prompt if question.prompt is not None else str(row.get(str(question.prompt_of)) or "")
        if name not in self.rubric.prompts:
            raise MetricError(f"The rubric has no prompt {name!r}, which this sample needs; give prompts that have it.")
        message: list[Image.Image | str] = []
        for show, caption in question.parts:
            if show == "prompt":
                message.append(self._filled(self.rubric.prompts[name], row))
                continue
            for number, picture in enumerate(self._pictures(show, item), 1):
                if caption:
                    message.append(caption.replace("{n}", str(number)))
                message.append(self._reduced(picture))
        return message

    def _filled(self, prompt: str, row: Mapping[str, Any]) -> str:
        """The prompt with its placeholders replaced in one pass, so that a text with a placeholder in it stays as it is."""
        known = {place: row.get(field) for place, field in self.rubric.fill.items()}
        braces = {"{{": "{", "}}": "}"} if self.rubric.doubled_braces else {}
        absent = [field for place, field in self.rubric.fill.items() if place in prompt and known[place] in (None, "")]
        if absent:
            raise MetricError(f"The prompt needs {absent[0]!r}, which the sample does not have; correct the data.")
        every = {**{place: str(text) for place, text in known.items()}, **braces}
        pattern = "|".join(re.escape(place) for place in sorted(every, key=len, reverse=True))
        return re.sub(pattern, lambda match: every[match.group()], prompt) if every else prompt

    def _pictures(self, show: str, item: ScoreItem) -> list[Image.Image]:
        pictures = item.pictures
        edit = item.edited_at(pictures.source.size) if self.rubric.edit_size == "source" else item.edited
        inputs = [pictures.source, *pictures.references]
        if show == "frames":
            place = item.sample.extras.get("frame")
            if not isinstance(place, int) or not 1 <= place <= len(inputs) + 1:
                raise MetricError(f"The sample's frame is {place!r}, not a place among its images; correct the data.")
            return [*inputs[: place - 1], edit, *inputs[place - 1 :]]
        found = {"source": inputs[:1], "inputs": inputs, "references": inputs[1:], "edit": [edit]}
        return [item.target] if show == "target" else found[show]

    def _reduced(self, picture: Image.Image) -> Image.Image:
        side = self.rubric.longest_side
        if side is None or max(picture.size) <= side:
            return picture
        smaller = picture.copy()
        smaller.thumbnail((side, side))
        return smaller

    def _measurement(self, replies: Sequence[tuple[Question, str | CareEditError]]) -> Measurement:
        answers = tuple(self._answer(question, reply) for question, reply in replies)
        marks: dict[str, float | None] = {mark: None for one in self.rubric.questions for mark in one.marks}
        try:
            for question, reply in replies:
                if isinstance(reply, CareEditError):
                    raise reply
                scale = question.scale or self.rubric.scale
                found = read_marks(reply, self.rubric.reading(question), len(question.marks), scale)
                marks |= dict(zip(question.marks, found, strict=True))
            numbers = combine(self.rubric, marks)
        except CareEditError as error:
            return Measurement(error=str(error), answers=answers)
        outputs = [output.name for output in self.rubric.outputs]
        values = {name: value for name in outputs if (value := numbers[name]) is not None}
        if not values:
            return Measurement(not_applicable="has no number for this sample", answers=answers)
        absent = {name: "was not asked for" for name in outputs if name not in values}
        return Measurement(values=values, absent=absent, answers=answers)

    def _answer(self, question: Question, reply: str | CareEditError) -> JudgeAnswer:
        failed = isinstance(reply, CareEditError)
        asked = (
            f"the prompt {question.prompt}" if question.prompt is not None else f"the prompt of {question.prompt_of}"
        )
        return JudgeAnswer(
            about=", ".join(question.marks),
            asked=asked,
            reply=None if failed else str(reply),
            error=str(reply) if failed else None,
        )


def row_of(item: ScoreItem) -> dict[str, Any]:
    """The sample as expressions and prompts see it: its extras, its texts, instruction, kind, and what it has."""
    sample = item.sample
    return {
        **sample.extras,
        **sample.texts,
        "instruction": sample.instruction,
        "kind": sample.kind,
        "has_target": sample.target is not None,
        "has_references": bool(sample.references),
    }


def combine(rubric: Rubric, marks: Mapping[str, float | None]) -> dict[str, float | None]:
    """Every value of a rubric, from its marks; None for one that does not apply. Raises `MetricError`."""
    known: dict[str, Any] = dict(marks)
    found: dict[str, float | None] = {}
    for name, formula in rubric.formulas.items():
        try:
            value = formula(**known)
        except (ArithmeticError, TypeError, ValueError, TemplateError) as error:
            raise MetricError(f"The value {name!r} cannot be computed ({error}); correct the rubric.") from error
        if value is not None and (not isinstance(value, int | float) or not math.isfinite(value)):
            raise MetricError(f"The value {name!r} is {str(value)[:40]!r}, not a number; correct the rubric.")
        known[name] = found[name] = None if value is None else float(value)
    return found


def read_marks(reply: str, read: Reading, count: int, scale: tuple[float, float]) -> tuple[float, ...]:
    """The marks of a reply. Raises `MetricError` unless it has exactly `count` numbers on the scale.

    A thought before the answer is removed. Exactly one JSON object of the answer must have the marks.
    """
    low, high = scale
    try:
        answer = without_thought(reply) if reply.strip() else reply
    except Unanswered as failure:
        raise MetricError(f"{UNREAD}cannot be read: {failure}") from None
    marks = _numbers(answer, read, count)
    if marks is None or any(not low <= mark <= high for mark in marks):
        said = " ".join(answer.split())[:80]
        what = NUMBERS.get(count, f"no {count} marks")
        form = "writes them as it is asked to" if read.pattern is not None else "keeps to JSON"
        raise MetricError(f"{UNREAD}{said!r} holds {what} from {low:g} to {high:g}; use a judge that {form}.")
    return marks


def _numbers(answer: str, read: Reading, count: int) -> tuple[float, ...] | None:
    """The numbers of an answer; None if there are not exactly `count`."""
    if read.pattern is not None:
        found: list[Any] = re.findall(read.pattern, answer.replace("\r\n", "\n"))
        if count == 1:
            found = list(dict.fromkeys(found))
        return tuple(map(float, found)) if len(found) == count and all(map(_is_decimal, found)) else None
    keys = read.fields or (str(read.array),)
    try:
        objects = [one for one in json_objects(answer) if all(key in one for key in keys)]
    except (ValueError, RecursionError):
        return None
    if len(objects) != 1:
        return None
    found = [objects[0][key] for key in read.fields] if read.fields else objects[0][keys[0]]
    right = isinstance(found, list) and len(found) == count
    if not right or any(isinstance(mark, bool) or not isinstance(mark, int | float) for mark in found):
        return None
    return tuple(map(float, found))


def _is_decimal(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None


def json_objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, one after another. Raises ValueError at a brace that begins none."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        found, end = decoder.raw_decode(text, at)
        yield found
        at = text.find("{", end)


def viescore(options: JudgeOptions) -> Metric:
    """careedit's own rubric in the style of VIEScore, from its options."""
    return _made(load_rubric("vie"), options.endpoint, None)


def rubric(options: RubricOptions) -> Metric:
    """A rubric from its options."""
    return _made(load_rubric(options.rubric, options.prompts), options.endpoint, options.local, options.passes)


def _made(found: Rubric, endpoint: Mapping[str, Any] | None, local: LocalJudge | None, passes: int = 1) -> Metric:
    if endpoint is not None and local is not None:
        raise MetricError(f"{found.name} has two judges; remove `local` or `endpoint`.")
    if local is not None:
        from careedit_eval.metrics.local_writer import local_writer

        return RubricMetric(found, local_writer(local, max_tokens=found.max_tokens), passes=passes)
    if endpoint is None:
        raise MetricError(f"{found.name} needs a judge that writes; give the fields of an endpoint under `endpoint`.")
    return RubricMetric(found, EndpointWriter(EndpointConfig(**endpoint), max_tokens=found.max_tokens), passes=passes)


def _averaged(found: Sequence[Measurement]) -> Measurement:
    """The mean of the numbers of several passes, with all answers; the first pass that failed decides otherwise."""
    if len(found) == 1:
        return found[0]
    answers = tuple(answer for one in found for answer in one.answers)
    failed = next((one for one in found if not one.values), None)
    if failed is not None:
        return failed.model_copy(update={"answers": answers})
    values = {name: sum(one.values[name] for one in found) / len(found) for name in found[0].values}
    return found[0].model_copy(update={"values": values, "answers": answers})
