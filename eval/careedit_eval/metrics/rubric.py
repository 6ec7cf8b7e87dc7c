"""Rubrics: YAML files that say what a judge is asked about an edit, how its marks are read, and how they are combined.

Rubrics in `rubrics/` follow published protocols. Prompts whose licence does not allow a copy come from a file of the user.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field, model_validator

from careedit.errors import InputError
from careedit.files import json_digest, read_yaml
from careedit.record import Record
from careedit_eval.errors import MetricError
from careedit_eval.metrics.prompts import read_prompts
from careedit_eval.metrics.writer import MAX_TOKENS
from careedit_eval.records import Better, Output

FOLDER = Path(__file__).parent / "rubrics"
"""The folder of the rubrics of the package."""
ROW = "row"
"""The name of the sample in conditions: `row.kind`, `row.has_target`, and the texts and extras of the sample."""
Show = Literal["prompt", "source", "edit", "target", "references", "inputs", "frames"]
"""What a message contains: the prompt; the source; the edit; the target; the references; the source and the references; or
these with the edit at its place among them, which is `frame` of the sample, from 1."""


def mean(*marks: float | None) -> float:
    """The mean of the marks that were asked for."""
    found = [mark for mark in marks if mark is not None]
    if not found:
        raise MetricError("None of the marks of a mean was asked for; correct the rubric.")
    return sum(found) / len(found)


_EXPRESSIONS = ImmutableSandboxedEnvironment()
_EXPRESSIONS.globals = {"min": min, "max": max, "sqrt": math.sqrt, "round": round, "mean": mean}
_STRICT = _EXPRESSIONS.overlay(undefined=StrictUndefined)


class Reading(Record):
    """How marks are read out of a reply: in exactly one of three ways."""

    array: str | None = None
    """The key of the only JSON object of the reply that has it; its value is a list with one number per mark."""
    fields: tuple[str, ...] = ()
    """The keys of the only JSON object of the reply that has them all, one per mark, in the order of the marks."""
    pattern: str | None = None
    """A regular expression with one group. It must match once per mark, in the order of the marks. For a single mark it may
    match several times, if all matches give the same number."""

    @model_validator(mode="after")
    def _check_one(self) -> Reading:
        if (self.array is not None) + bool(self.fields) + (self.pattern is not None) != 1:
            raise InputError("A reading is `array`, `fields` or `pattern`; give exactly one of them.")
        try:
            groups = 1 if self.pattern is None else re.compile(self.pattern).groups
        except re.error as error:
            raise InputError(
                f"The pattern {self.pattern!r} is not a regular expression ({error}); correct it."
            ) from error
        if groups != 1:
            raise InputError(f"The pattern {self.pattern!r} has {groups} groups; give it one, around the number.")
        return self


class Question(Record):
    """One question to the judge about an edit."""

    marks: Annotated[tuple[str, ...], Field(min_length=1)]
    """The names of the marks that the reply gives, in order."""
    when: str = ""
    """An expression of the sample that says whether it is asked, such as `row.has_target`; empty always asks it."""
    prompt: str | None = None
    """The name of the prompt; None if `prompt_of` chooses it."""
    prompt_of: str | None = None
    """The field of the sample whose value is the name of the prompt, such as "kind"; None if `prompt` names it."""
    message: Annotated[tuple[Show | Mapping[Show, str], ...], Field(min_length=1)]
    """The parts of the message in order. An image may have a caption, {source: "Before:"}; {n} in it is the image's number."""
    read: Reading | None = None
    """How the marks are read out of the reply; None means as the rubric says."""
    scale: tuple[float, float] | None = None
    """The lowest and the highest mark; None means the scale of the rubric."""

    @model_validator(mode="after")
    def _check_prompt(self) -> Question:
        if (self.prompt is None) == (self.prompt_of is None):
            raise InputError("A question has `prompt` or `prompt_of`; give exactly one of them.")
        return self

    @property
    def parts(self) -> tuple[tuple[Show, str], ...]:
        """The parts of the message with their captions; "" for no caption."""
        found: list[tuple[Show, str]] = []
        for part in self.message:
            found += [(part, "")] if isinstance(part, str) else list(part.items())
        return tuple(found)


class Value(Record):
    """A number that is computed from marks, and from values before it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """The name of the value, unique in the rubric."""
    value: str
    """The expression, in jinja's language with min, max, sqrt, round and mean. A mark that was not asked for is none. If the
    result is none, the number does not apply to the sample."""
    better: Better | None = None
    """Whether higher or lower is better. None means that the value is only an intermediate one and is not reported."""
    passes: bool = False
    """Whether the number is 0 or 1, for failed or passed."""


class Rubric(Record):
    """A whole rubric."""

    schema_version: Literal[1] = 1
    """The version of this file's format."""
    name: str
    """The name of the metric in tables."""
    protocol: str
    """The name of the protocol with its version, such as "gedit-1"."""
    description: str = ""
    """What is measured, and from where the protocol is."""
    scale: tuple[float, float]
    """The lowest and the highest mark of a question without a scale of its own."""
    read: Reading | None = None
    """How marks are read in questions that do not say it; None if each question says it."""
    edit_size: Literal["source", "own"] = "own"
    """The size in which the judge sees the edit: that of the source, or the edit's own."""
    longest_side: Annotated[int, Field(ge=16)] | None = None
    """The side in pixels to which larger images are reduced before they are sent; None sends them as they are."""
    max_tokens: Annotated[int, Field(ge=1)] | None = MAX_TOKENS
    """The maximum length of an answer, in tokens; null leaves it to the endpoint."""
    fill: Mapping[str, str]
    """The field of the sample that replaces each placeholder in the prompts: {"<instruction>": instruction}."""
    doubled_braces: bool = False
    """Whether the prompts write "{{" for "{", as texts for Python's `str.format` do."""
    prompts: Mapping[str, str] = Field(default_factory=dict)
    """The prompts by name; empty if the user gives the file with them."""
    joined: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Prompts that consist of several texts of the file, with a line break between two: the names of the texts by prompt."""
    wording: Mapping[str, str] = Field(default_factory=dict)
    """Texts in the file's prompts that are replaced, such as {"10": "25"} for another scale."""
    prompts_file: str = ""
    """Which file the user must give if `prompts` is empty."""
    questions: Annotated[tuple[Question, ...], Field(min_length=1)]
    """The questions about each edit."""
    values: Annotated[tuple[Value, ...], Field(min_length=1)]
    """The values that are computed from the marks, in order."""

    @model_validator(mode="after")
    def _check_names(self) -> Rubric:
        known = {mark for question in self.questions for mark in question.marks}
        for question in self.questions:
            _check(question.when or "true", {ROW}, "the condition")
            fields = self.reading(question).fields
            if fields and len(fields) != len(question.marks):
                raise InputError("`fields` needs one key per mark; correct the question.")
        for one in self.values:
            if one.name in known:
                raise InputError(f"The name {one.name!r} occurs twice; give each mark and value its own name.")
            _check(one.value, known, f"the value {one.name!r}")
            known.add(one.name)
        if not self.outputs:
            raise InputError("No value has `better`, so the rubric reports no number; give it to one.")
        return self

    def reading(self, question: Question) -> Reading:
        """How the marks of a question are read. Raises `InputError` if neither it nor the rubric says it."""
        found = question.read or self.read
        if found is None:
            raise InputError(f"The question about {question.marks[0]!r} does not say how it is read; add `read`.")
        return found

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The numbers that are reported."""
        return tuple(
            Output(name=one.name, better=one.better, passes=one.passes) for one in self.values if one.better is not None
        )

    @property
    def digest(self) -> str:
        """The hash of everything that changes a number. A field that keeps its default is left out, so a new field of this
        record changes no hash."""
        return json_digest(self.model_dump(mode="json", exclude_defaults=True, exclude={"description", "prompts_file"}))

    @cached_property
    def conditions(self) -> tuple[Callable[..., Any], ...]:
        """The conditions of the questions, called with `row`. A field that a sample lacks counts as false."""
        return tuple(_EXPRESSIONS.compile_expression(one.when or "true") for one in self.questions)

    @cached_property
    def formulas(self) -> Mapping[str, Callable[..., Any]]:
        """The expressions of the values, called with the marks and the values before them."""
        return {one.name: _STRICT.compile_expression(one.value, undefined_to_none=False) for one in self.values}

    def with_prompts(self, file: str | None) -> Rubric:
        """The rubric with the prompts that its questions use, from `file` if it has none of its own. Raises `InputError`."""
        found = self.prompts
        if found and file is not None:
            raise InputError(f"The rubric {self.name!r} has its own prompts; remove `prompts` from the options.")
        where = self.prompts_file or "a JSON, YAML or Python file with its prompts"
        if not found:
            if file is None:
                raise InputError(
                    f"The rubric {self.name!r} comes without prompts, because their licence does not allow a copy; download "
                    f"{where} and give its path as `prompts`."
                )
            found = self._composed(read_prompts(file), where)
        named = [one.prompt for one in self.questions if one.prompt is not None]
        missing = [name for name in named if name not in found]
        if missing:
            raise InputError(f"The rubric {self.name!r} needs the prompt {missing[0]!r}; give {where} as `prompts`.")
        if all(one.prompt is not None for one in self.questions):
            found = {name: found[name] for name in named}
        return self.model_copy(update={"prompts": found})

    def _composed(self, texts: Mapping[str, str], where: str) -> Mapping[str, str]:
        """The prompts of a file, joined and reworded as the rubric says."""
        missing = [name for names in self.joined.values() for name in names if name not in texts]
        if missing:
            raise InputError(f"The rubric {self.name!r} needs the text {missing[0]!r}; give {where} as `prompts`.")
        found = {**texts, **{name: "\n".join(texts[one] for one in names) for name, names in self.joined.items()}}
        for old, new in self.wording.items():
            found = {name: text.replace(old, new) for name, text in found.items()}
        return found


def load_rubric(name: str, prompts: str | None = None) -> Rubric:
    """A rubric of the package by its name, or the file at a path, with its prompts. Raises `InputError`."""
    shipped = FOLDER / f"{name}.yaml"
    if not shipped.is_file() and not Path(name).expanduser().is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise InputError(f"The rubric {name!r} does not exist; choose from {known}, or give the path of a YAML file.")
    file = shipped if shipped.is_file() else Path(name).expanduser()
    return Rubric(**read_yaml(file, "rubric")).with_prompts(prompts)


def _check(expression: str, known: set[str], what: str) -> None:
    """Raise `InputError` if an expression cannot be parsed or uses an unknown name."""
    try:
        names = meta.find_undeclared_variables(_EXPRESSIONS.parse("{{ " + expression + " }}"))
        _EXPRESSIONS.compile_expression(expression)
    except TemplateError as error:
        raise InputError(
            f"The expression {expression!r} of {what} cannot be read ({error}); correct the rubric."
        ) from error
    unknown = sorted(names - known - set(_EXPRESSIONS.globals))
    if unknown:
        raise InputError(
            f"The expression {expression!r} of {what} uses {unknown[0]!r}, which is not known there; correct the rubric."
        )
