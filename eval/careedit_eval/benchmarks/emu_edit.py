"""Emu Edit's test set (arXiv 2311.10089): 3,589 instructions of seven tasks, without targets.

The test rows are the split "test" of `facebook/emu_edit_test_set`. In `..._generations`, which repeats them with Emu Edit's
own results, the names of the splits are swapped. Some papers drop rows whose input and output captions are equal, which
changes CLIP-T by 0.026: see `captions`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from careedit_eval.benchmarks.base import UNKNOWN, Source, TableBenchmark, distinct_ids, group_of, taken
from careedit_eval.benchmarks.shards import Line, Shards, newest_commit
from careedit_eval.errors import BenchmarkError
from careedit_eval.records import Sample

HUB = "hf://facebook/emu_edit_test_set"
"""The address of the published data set."""
WORDS = ("instruction", "task", "split", "idx", "hash", "input_caption", "output_caption")
PICTURES = ("image",)
VALIDATION_ROWS = 2022
"""The number of rows of the validation split, by which swapped names are recognised."""


class EmuEditConfig(Source):
    """Options of Emu Edit."""

    path: str = Field(default=HUB, min_length=1)
    """As `Source.path`; by default the data set on the hub, at the commit that is the newest there unless `revision` names
    one. A run states which it was."""
    captions: Literal["all", "changed"] = "all"
    """Which rows are used: all (Emu Edit, OmniGen), or those whose two captions differ (UltraEdit, ICEdit)."""


class EmuEdit(TableBenchmark):
    """The rows of the true test split."""

    def __init__(self, config: EmuEditConfig) -> None:
        pinned = newest_commit(HUB) if config.path == HUB and config.revision is None else None
        suffix = "" if config.captions == "all" else "-changed-captions"
        super().__init__(f"emu_edit{suffix}", config, pinned)
        self.config = config

    def _read(self) -> Iterator[Sample]:
        lines = list(self._shards().lines(WORDS, PICTURES))
        if len(lines) == VALIDATION_ROWS:
            raise BenchmarkError(
                f"{self.source.path!r} holds {VALIDATION_ROWS:,} rows, which is Emu Edit's validation split; give the "
                "test split of 3,589 rows (called validation in the repository of generations)."
            )
        named = list(zip(distinct_ids([(_name(line), line.text("hash")) for line in lines]), lines, strict=True))
        if self.config.captions == "changed":
            same = ("input_caption", "output_caption")
            named = [(name, line) for name, line in named if len({_plain(line, column) for column in same}) == 2]
        yield from (_sample(name, line) for name, line in taken(named, self.config.limit))

    def _shards(self) -> Shards:
        """The shards of the test rows, whatever their split is named."""
        every = Shards(self.path)
        generations = "edited_image" in every.columns()
        prefix = "validation" if generations else "test"
        if len(every.uris) == 1:
            return every
        return Shards(self.path, prefix=prefix)


def _name(line: Line) -> str:
    index = line.text("idx")
    return f"{line.text('task') or UNKNOWN}-{index}" if index else line.place.name


def _plain(line: Line, column: str) -> str:
    return " ".join(line.text(column).casefold().rstrip(".").split())


def _sample(name: str, line: Line) -> Sample:
    source = line.picture("image")
    captions = {"source_caption": line.text("input_caption"), "target_caption": line.text("output_caption")}
    return Sample(
        id=name,
        kind=line.text("task") or UNKNOWN,
        instruction=line.text("instruction"),
        source=source,
        texts={text: words for text, words in captions.items() if words},
        group=group_of(source, name),
        extras={"hash": line.text("hash")},
        problem=line.lack("idx", "instruction"),
    )
