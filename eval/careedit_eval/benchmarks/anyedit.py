"""AnyEdit (arXiv 2411.15738): edits of 25 types with targets, some with a visual input.

Two published layouts are read: the hub's parquet shards (train, validation), and the folder of AnyBench, the test archive, which
has an `edit_result.json` per type. The archive may not be redistributed: unpack it yourself.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from careedit_eval.benchmarks.base import UNKNOWN, Source, TableBenchmark, distinct_ids, group_of, taken
from careedit_eval.benchmarks.listings import entries_of, files_named
from careedit_eval.benchmarks.shards import Row, Shards
from careedit_eval.records import Sample

LISTING = "edit_result.json"
"""The file of each type in the test archive."""
INSTRUCTIONS = ("edit_instruction", "edit")
"""The column of the instruction in the shards, and in the listings."""
WORDS = ("edit_instruction", "edit_type")
CAPTIONS = {"source_caption": "input", "target_caption": "output"}
"""The name of each text, with the column that may have it."""
IMAGES = ("image_file", "edited_file", "visual_input")


class AnyEditConfig(Source):
    """Options of AnyEdit."""

    split: str = "validation"
    """The split of the parquet shards; the test archive has a single split."""
    images: str | None = None
    """In the test archive, the folder that the names of images are relative to; None means `path`."""


class AnyEdit(TableBenchmark):
    """All rows. A visual input is a reference of the edit."""

    def __init__(self, config: AnyEditConfig) -> None:
        super().__init__("anyedit", config)
        self.config = config

    def _read(self) -> Iterator[Sample]:
        files = files_named(self.path, f"**/{LISTING}")
        rows = list(self._archive(files) if files else self._shards())
        named = zip(distinct_ids([(_name(row), _asked(row)) for row in rows]), rows, strict=True)
        yield from (_sample(name, row) for name, row in taken(named, self.config.limit))

    def _archive(self, files: list[str]) -> Iterator[Row]:
        folder = self.config.images or self.path
        return chain.from_iterable(entries_of(file, folder, where="/".join(file.split("/")[-2:])) for file in files)

    def _shards(self) -> Iterator[Row]:
        every = Shards(self.path)
        shards = every if len(every.uris) == 1 else Shards(self.path, prefix=self.config.split)
        captions = tuple(column for column in CAPTIONS.values() if column in shards.columns())
        return shards.lines((*WORDS, *captions), IMAGES)


def _instruction(row: Row) -> str:
    """The column that has the instruction."""
    return next((column for column in INSTRUCTIONS if column in row.cells), INSTRUCTIONS[0])


def _name(row: Row) -> str:
    return f"{row.text('edit_type') or UNKNOWN}-{row.text('edited_file') or row.place}"


def _asked(row: Row) -> str:
    return row.text(_instruction(row))


def _sample(name: str, row: Row) -> Sample:
    source, reference = row.picture("image_file"), row.picture_or_none("visual_input")
    return Sample(
        id=name,
        kind=row.text("edit_type") or UNKNOWN,
        instruction=_asked(row),
        source=source,
        target=row.picture("edited_file"),
        references=() if reference is None else (reference,),
        texts={text: words for text, column in CAPTIONS.items() if (words := row.text(column))},
        group=group_of(source, name),
        problem=row.lack(_instruction(row)),
    )
