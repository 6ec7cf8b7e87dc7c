"""Published benchmarks for judges, as the hub stores them: edits of one source that people compared two by two.

- EditReward-Bench of TIGER-Lab (arXiv 2509.26346): groups of 2, 3 and 4 edits.
- EditReward-Bench of EditScore (arXiv 2509.23909): pairs per dimension; the first edit is always the better one.
- VCReward-Bench of GEditBench v2 (arXiv 2603.28547): pairs for visual consistency.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from careedit.errors import InputError
from careedit_eval.benchmarks.shards import Line, Shards, resolve
from careedit_eval.errors import BenchmarkError
from careedit_eval.judges.pairs import PUBLISHED, Candidate, Rated, RatedPair
from careedit_eval.pictures import Cell, PictureRef, picture_bytes
from careedit_eval.records import Sample
from careedit_eval.row_groups import read_column

DIMENSIONS = ("prompt_following", "consistency", "overall")
"""The dimensions of EditScore's benchmark."""
_RANKING = re.compile(r"\s*([A-D])\s*([<>=])\s*([A-D])\s*")
_TYPE = re.compile(r"([A-D])vs([A-D])")


@dataclass(frozen=True)
class _Layout:
    """One published layout."""

    name: str
    """The name of the benchmark."""
    words: tuple[str, ...]
    """The columns with words that it must have."""
    pictures: tuple[str, ...]
    """The columns with images that it must have."""
    optional: tuple[str, ...]
    """The columns with words that are read if they exist."""
    read: Callable[[Line], RatedPair]
    """Makes the pair of a row. Raises `InputError` for a row that cannot be used."""


def read_published(path: str, *, dimension: str = "overall") -> Rated:
    """The pairs of a folder or file of shards, in one of the published layouts; `dimension` selects rows of EditScore's.
    "hf://OWNER/NAME@COMMIT" is a data set of the hub.

    Rows that cannot be used are listed. Raises `BenchmarkError` for another layout, or if no row can be used.
    """
    path, _ = resolve(path, None)
    shards = Shards(path)
    columns = set(shards.columns())
    layout = next((one for one in LAYOUTS if columns >= {*one.words, *one.pictures}), None)
    if layout is None:
        known = "; ".join(f"{one.name}: {', '.join((*one.words, *one.pictures))}" for one in LAYOUTS)
        raise BenchmarkError(
            f"{path!r} has the columns {', '.join(sorted(columns))}, not those of a known benchmark for judges. Known are {known}."
        )
    if "dimension" in layout.words and dimension not in DIMENSIONS:
        raise BenchmarkError(f"The dimension {dimension!r} does not exist; choose from {', '.join(DIMENSIONS)}.")
    words = (*layout.words, *(name for name in layout.optional if name in columns))
    pairs, unusable = [], []
    for line in shards.lines(words, layout.pictures):
        if "dimension" in layout.words and line.text("dimension") != dimension:
            continue
        try:
            pairs.append(layout.read(line))
        except InputError as error:
            unusable.append(f"{line.place}: {error}")
    if not pairs:
        why = f" The first: {unusable[0]}" if unusable else ""
        raise BenchmarkError(f"{path!r} has no row that can be used.{why}")
    about = f", {dimension}" if "dimension" in layout.words else ""
    return Rated(f"{layout.name}{about}", tuple(pairs), tuple(unusable))


def _tiger(line: Line) -> RatedPair:
    compared = _TYPE.fullmatch(line.text("comparison_type") or "AvsB")
    ranking = _RANKING.fullmatch(line.text("ranking"))
    if compared is None:
        raise InputError(f"comparison_type is {line.text('comparison_type')!r}, not a comparison such as AvsB.")
    if ranking is None or {ranking[1], ranking[3]} != {compared[1], compared[2]}:
        raise InputError(f"ranking is {line.text('ranking')!r}, not a ranking of {compared[1]} and {compared[2]}.")
    verdict = {">": 1, "<": -1, "=": 0}[ranking[2]] * (1 if ranking[1] == compared[1] else -1)
    name = line.text("id")
    group = f"{line.text('dataset')}/{name.partition('_')[0]}"
    edits = [_edit(_single(line, f"candidate_{number}"), line.text(f"model_{number}")) for number in (1, 2)]
    return _pair(line, name, group, line.text("dataset"), _single(line, "source_image"), edits, verdict)


def _editscore(line: Line) -> RatedPair:
    keys = line.cells.get("key")
    if not isinstance(keys, Sequence) or isinstance(keys, str) or len(keys) != 2:
        raise InputError("key does not hold the keys of two edits.")
    edits = [_edit(one, "") for one in _two(line, "output_images")]
    source = _single(line, "input_image")
    group = f"{line.text('task_type')}/{source.sha256}/{line.text('instruction')}"
    return _pair(line, "_vs_".join(map(str, keys)), group, line.text("task_type"), source, edits, 1)


def _vcreward(line: Line) -> RatedPair:
    winner = line.text("winner")
    verdict = {"image a": 1, "image b": -1, "tie": 0}.get(winner.lower())
    if verdict is None:
        raise InputError(f"winner is {winner!r}, not Image A, Image B or Tie.")
    source = _single(line, "source_image")
    edits = [_edit(one, "") for one in _two(line, "edited_images")]
    group = f"{line.text('task')}/{source.sha256}/{line.text('instruction')}"
    return _pair(line, line.text("key"), group, line.text("task"), source, edits, verdict)


def _pair(
    line: Line, name: str, group: str, kind: str, source: PictureRef, edits: Sequence[Candidate], verdict: int
) -> RatedPair:
    instruction = line.text("instruction")
    if not instruction:
        raise InputError("instruction is empty.")
    sample = Sample(id=name or line.place.name, kind=kind, instruction=instruction, source=source, group=source.sha256)
    return RatedPair(sample=sample, group=group, left=edits[0], right=edits[1], votes={PUBLISHED: verdict})


def _edit(picture: PictureRef, model: str) -> Candidate:
    return Candidate(picture.sha256, picture, model)


def _single(line: Line, column: str) -> PictureRef:
    found = line.picture(column)
    if found.missing is not None:
        raise InputError(found.missing)
    return found


def _two(line: Line, column: str) -> Iterator[PictureRef]:
    """The two images of a list. Raises `InputError` if the cell has another number of images."""
    place = line.place
    value = read_column(place.uri, place.group, column)[place.row].as_py() or ()
    data = [picture_bytes(one) for one in value]
    if len(data) != 2 or None in data:
        raise InputError(f"{column} does not hold two images.")
    for item, one in enumerate(data):
        cell = Cell(group=place.group, row=place.row, column=column, item=item)
        yield PictureRef(sha256=PictureRef.of(one or b"").sha256, uri=place.uri, cell=cell)


LAYOUTS = (
    _Layout(
        "EditReward-Bench of TIGER-Lab",
        ("id", "dataset", "instruction", "ranking"),
        ("source_image", "candidate_1", "candidate_2"),
        ("comparison_type", "model_1", "model_2"),
        _tiger,
    ),
    _Layout(
        "EditReward-Bench of EditScore",
        ("key", "instruction", "dimension", "task_type"),
        ("input_image", "output_images"),
        (),
        _editscore,
    ),
    _Layout(
        "VCReward-Bench",
        ("key", "instruction", "winner", "task"),
        ("source_image", "edited_images"),
        (),
        _vcreward,
    ),
)
"""The published layouts, in the order in which they are tried."""
