"""Images of the report: a sample before and after, small enough to be part of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image

from careedit.errors import CareEditError
from careedit.images import decode_image, save_image
from careedit_eval.alignment import load_pictures
from careedit_eval.compare import Flip
from careedit_eval.records import Sample
from careedit_eval.runs import Run
from careedit_eval.suite import make_benchmark

SIDE = 320
"""The longest side of an image on the page, in pixels; smaller ones keep their size."""
CELL = 128
"""The side of a cell of the grid, in pixels."""


class Gallery:
    """The images of a run's samples, scaled down; unreadable ones are left out."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._samples: dict[tuple[str, str], Sample] = {}
        self._shown: dict[tuple[object, ...], dict[str, Image.Image]] = {}
        for part in run.record.suite.benchmarks:
            try:
                benchmark = make_benchmark(part)
                self._samples |= {(benchmark.name, sample.id): sample for sample in benchmark.rows()}
            except CareEditError:  # the data set is not here: its edits still are
                continue

    def of(self, flip: Flip, arms: Sequence[str]) -> dict[str, Image.Image]:
        """The source, the edit of each set, and the right result, by caption in this order."""
        key = (flip.benchmark, flip.sample_id, flip.seed, *arms)
        if key not in self._shown:
            self._shown[key] = self._read(flip, arms)
        return self._shown[key]

    def _read(self, flip: Flip, arms: Sequence[str]) -> dict[str, Image.Image]:
        found: dict[str, Image.Image] = {}
        sample = self._samples.get((flip.benchmark, flip.sample_id))
        loaded = None
        if sample is not None:
            with suppress(CareEditError):
                loaded = load_pictures(sample)
        if loaded is not None and (source := loaded.known("source")) is not None:
            found["source"] = small(source)
        for arm in arms:
            line = self._run.table.edits_of(flip.benchmark, arm).get((flip.sample_id, flip.seed))
            if line is not None and line.picture is not None:
                try:
                    found[arm] = small(decode_image(self._run.store / line.picture))
                except CareEditError:
                    continue
        if loaded is not None and (target := loaded.known("target")) is not None:
            found["truth"] = small(target)
        return found


def write_grid(path: Path, rows: Sequence[Mapping[str, Image.Image]]) -> None:
    """One image of several samples, row by row, for a tracking page."""
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        return
    grid = Image.new("RGB", (columns * CELL, len(rows) * CELL), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row.values()):
            cell = picture.resize(
                (CELL, CELL), Image.Resampling.NEAREST if picture.width < CELL else Image.Resampling.LANCZOS
            )
            grid.paste(cell, (x * CELL, y * CELL))
    save_image(grid, path)


def small(picture: Image.Image, side: int = SIDE) -> Image.Image:
    """The image with a longest side of at most `side` pixels."""
    if max(picture.size) <= side:
        return picture
    reduced = picture.copy()
    reduced.thumbnail((side, side), Image.Resampling.LANCZOS)
    return reduced
