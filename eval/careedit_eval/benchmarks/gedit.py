"""GEdit-Bench (arXiv 2504.17761): instructions of users in English and Chinese, eleven types, without targets.

The data set is read as the hub stores it (Arrow files of `datasets`), or as parquet. Published results are the mean over the
types, for each language, over all rows or over the *intersection*: the rows that every compared service answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from careedit_eval.benchmarks.base import UNKNOWN, Source, TableBenchmark, distinct_ids, group_of, taken
from careedit_eval.benchmarks.shards import Line, Shards, newest_commit
from careedit_eval.records import Sample

HUB = "hf://stepfun-ai/GEdit-Bench"
"""The address of the published data set."""
KINDS = (
    "background_change",
    "color_alter",
    "material_alter",
    "motion_change",
    "ps_human",
    "style_change",
    "subject-add",
    "subject-remove",
    "subject-replace",
    "text_change",
    "tone_transfer",
)
"""The kinds of edit: the values of the column `task_type`."""
LANGUAGES = ("en", "cn")
WORDS = ("key", "task_type", "instruction", "instruction_language", "Intersection_exist")
IMAGES = ("input_image", "input_image_raw")


class GEditConfig(Source):
    """Options of GEdit-Bench."""

    path: str = Field(default=HUB, min_length=1)
    """As `Source.path`; by default the data set on the hub, at the commit that is the newest there unless `revision` names
    one. A run states which it was."""
    language: Literal["en", "cn"] = "en"
    """The language of the instructions."""
    intersection: bool = False
    """Whether only the rows of the intersection are used."""
    picture: Literal["input_image", "input_image_raw"] = "input_image"
    """The column of the source. The published script shows the judge `input_image`, which is the image of the user
    (`input_image_raw`) at about 512 x 512 pixels."""


class GEdit(TableBenchmark):
    """The rows of one language."""

    def __init__(self, config: GEditConfig) -> None:
        pinned = newest_commit(HUB) if config.path == HUB and config.revision is None else None
        raw = "-raw" if config.picture == "input_image_raw" else ""
        super().__init__(
            f"gedit-{config.language}{'-intersection' if config.intersection else ''}{raw}", config, pinned
        )
        self.config = config

    def _read(self) -> Iterator[Sample]:
        lines = list(Shards(self.path).lines(WORDS, (self.config.picture,)))
        named = zip(distinct_ids([(_name(line), _asked(line)) for line in lines]), lines, strict=True)
        yield from (self._sample(name, line) for name, line in taken(filter(self._is_used, named), self.config.limit))

    def _is_used(self, named: tuple[str, Line]) -> bool:
        """Whether a row is of the language and the intersection. A row that does not say it is used, as a row with an error."""
        line = named[1]
        other = line.text("instruction_language") in set(LANGUAGES) - {self.config.language}
        return not other and not (self.config.intersection and line.cells["Intersection_exist"] is False)

    def _sample(self, name: str, line: Line) -> Sample:
        source = line.picture(self.config.picture)
        shared = line.cells["Intersection_exist"]
        problem = line.lack("key", "instruction", "instruction_language")
        if problem is None and line.text("instruction_language") not in LANGUAGES:
            problem = f"{line.place}: instruction_language is {line.text('instruction_language')!r}, not en or cn."
        if problem is None and self.config.intersection and not isinstance(shared, bool):
            problem = f"{line.place}: Intersection_exist is empty."
        return Sample(
            id=name,
            kind=line.text("task_type") or UNKNOWN,
            instruction=line.text("instruction"),
            source=source,
            group=group_of(source, name),
            extras={"language": line.text("instruction_language"), "intersection": bool(shared)},
            problem=problem,
        )


def _name(line: Line) -> str:
    return line.text("key") or line.place.name


def _asked(line: Line) -> str:
    return f"{line.text('instruction_language')}: {line.text('instruction')}"
