"""A user's own rows: a folder with metadata.jsonl or metadata.csv, or parquet shards; and drawn scenes in a folder.

Columns have the names of training rows (`careedit.tabular`), so training data can also measure an expert. Only source and
instruction are needed; some metrics need more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from careedit import plugins
from careedit.errors import InputError
from careedit.tabular import METADATA, ROLES, TextTable, is_missing, match_columns, words_of
from careedit_eval.benchmarks.base import Source, TableBenchmark, group_of, taken
from careedit_eval.benchmarks.shards import Line, Shards, check_columns, file_ref
from careedit_eval.errors import BenchmarkError
from careedit_eval.pictures import PictureRef
from careedit_eval.records import Sample

PICTURE_ROLES = ("source", "target", "mask", "reference")
"""The roles of a row's images."""
TEXTS = ("source_caption", "target_caption")
"""Columns of texts with their names in `Sample.texts`."""
OWN = ("id", "kind", "group", "scene", "feasible", *TEXTS)
"""Columns that a row may have in addition to its roles. `feasible` is false where the instruction does not apply to the image,
as in the rows of a router's training."""


class FolderConfig(Source):
    """Options of a folder of your own rows."""

    name: str = Field(default="folder", min_length=1)
    """The name of the benchmark in reports."""
    columns: Mapping[str, str] = Field(default_factory=dict)
    """The column of each role or text that has another name: {"source": "before"}."""
    masks: bool = True
    """Whether the editor sees the masks."""


class FolderBenchmark(TableBenchmark):
    """The rows of a folder. A row without an id is named by its number; a row without a kind has the kind "edit"."""

    def __init__(self, config: FolderConfig) -> None:
        super().__init__(config.name, config)
        self.config = config

    def _read(self) -> Iterator[Sample]:
        place = Path(os.path.expanduser(self.path))
        listing = next((name for name in plugins.names(plugins.LISTINGS) if (place / name).is_file()), None)
        if listing is not None:
            rows = plugins.load(plugins.LISTINGS, listing, error=BenchmarkError)(place)
        elif place.suffix in (".jsonl", ".csv") or any((place / name).is_file() for name in METADATA):
            rows = _text_rows(place, self.config)
        else:
            rows = _parquet_rows(self.path, self.config)
        named = ((sample.id, sample) for sample in rows)
        return (sample for _, sample in taken(named, self.config.limit))


def _text_rows(place: Path, config: FolderConfig) -> Iterator[Sample]:
    files = [place] if place.is_file() else [place / name for name in METADATA if (place / name).is_file()]
    if len(files) > 1:
        raise BenchmarkError(f"The folder {str(place)!r} holds both {METADATA[0]} and {METADATA[1]}; name one of them.")
    try:
        table = TextTable(files[0])
    except InputError as error:
        raise BenchmarkError(str(error)) from error
    if table.broken:
        also = f" ({len(table.broken)} of {len(table)} lines cannot be read)" if len(table.broken) > 1 else ""
        raise BenchmarkError(f"{table.broken[0]}{also}; mend the file.")
    names = _columns(table.columns, config)
    for index in range(len(table)):
        where, cells = table.where(index), table.cells(index)

        def picture(column: str, role: str, cells: Mapping[str, Any] = cells, where: str = where) -> PictureRef | None:
            value = cells.get(column)
            return None if is_missing(value) else file_ref(str(table.root), value, role, where)

        pictures = {role: picture(names[role], role) for role in PICTURE_ROLES if role in names}
        words = {role: cells.get(column) for role, column in names.items() if role not in PICTURE_ROLES}
        yield _sample(words, pictures, index, where, config)


def _parquet_rows(path: str, config: FolderConfig) -> Iterator[Sample]:
    shards = Shards(path)
    names = _columns(shards.columns(), config)
    pictured = {role: names[role] for role in PICTURE_ROLES if role in names}
    words = {role: column for role, column in names.items() if role not in pictured}
    lines: Iterator[Line] = shards.lines(tuple(words.values()), tuple(pictured.values()))
    for index, line in enumerate(lines):
        cells = {role: line.cells.get(column) for role, column in words.items()}
        pictures = {role: line.picture_or_none(column) for role, column in pictured.items()}
        yield _sample(cells, pictures, index, str(line.place), config)


def _columns(names: tuple[str, ...], config: FolderConfig) -> dict[str, str]:
    """The column of each role and text: first the configured ones, then the first layout that has source and instruction."""
    known = (*ROLES, *OWN)
    check_columns(names, config.columns.values(), f"The rows in {config.path!r}")
    unknown = [role for role in config.columns if role not in known]
    if unknown:
        raise BenchmarkError(f"{unknown[0]!r} is nothing that a column can be; choose from {', '.join(known)}.")
    found = match_columns(names, own=OWN, stated=config.columns)
    if found is not None:
        return found
    raise BenchmarkError(
        f"The columns {', '.join(names)} of {config.path!r} do not tell source and instruction; name them under "
        "`columns`, e.g. {source: before, instruction: text}."
    )


def _sample(
    cells: Mapping[str, Any],
    pictures: Mapping[str, PictureRef | None],
    index: int,
    where: str,
    config: FolderConfig,
) -> Sample:
    """A row as a sample; a row that cannot be edited has the reason."""
    texts: dict[str, str] = {}
    problem = None
    feasible = True
    for role, value in cells.items():
        try:
            if role == "feasible":
                feasible = _truth(value)
                continue
            texts[role] = words_of(value, numbers=role != "instruction")
        except InputError as error:
            texts[role] = ""
            problem = problem or f"{where}: the {role} is {error}."
    if not texts.get("instruction"):
        problem = problem or f"{where}: the instruction is empty."
    name = texts.get("id") or f"row-{index + 1}"
    source = pictures.get("source") or PictureRef.gone(problem or f"{where}: the source is empty.")
    mask, reference = pictures.get("mask"), pictures.get("reference")
    scene = texts.get("scene")
    return Sample(
        id=name,
        kind=texts.get("kind") or "edit",
        instruction=texts.get("instruction", ""),
        source=source,
        target=pictures.get("target"),
        mask=mask,
        mask_given=config.masks and mask is not None,
        references=() if reference is None else (reference,),
        texts={text: texts[text] for text in TEXTS if texts.get(text)},
        group=texts.get("group") or group_of(source, name),
        extras=({"scene": scene} if scene else {}) | ({} if feasible else {"feasible": False}),
        problem=problem,
    )


def _truth(value: Any) -> bool:
    """A cell as true or false; an empty cell is true. Raises `InputError`."""
    said = "" if is_missing(value) else str(value).strip().casefold()
    if said not in ("", "true", "1", "false", "0"):
        raise InputError(f"{value!r}, which is neither true nor false; correct it")
    return said not in ("false", "0")
