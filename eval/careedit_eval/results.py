"""The table of results, in two parquet files: every requested edit, and every number of it or the error in its place.

Rows are in the order of benchmarks, sets, samples and seeds, so equal results make equal files, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow
from pyarrow import parquet

from careedit.errors import InputError
from careedit_eval.errors import reason_of

DOES_NOT_APPLY = "does not apply: "
"""The prefix of the reason in `ScoreLine.notes`."""
EDITS_FILE, SCORES_FILE = "edits.parquet", "scores.parquet"


@dataclass(frozen=True, slots=True)
class _Line:
    """Which edit a line is about."""

    benchmark: str
    """The name of the benchmark."""
    arm: str
    """The name of the arm that edited."""
    sample_id: str
    """The id of the sample."""
    seed: int
    """The seed of the noise."""
    kind: str
    """The kind of edit of the sample."""
    group: str
    """The group of the sample: rows on one source image."""


@dataclass(frozen=True, slots=True)
class EditLine(_Line):
    """One requested edit, made or failed."""

    instruction: str
    """The instruction of the sample."""
    edit_key: str
    """The key of the edit in the store."""
    picture: str | None
    """The file of the image in the store; None if the edit failed."""
    nfe: int | None
    """The number of evaluations of the transformer; None if it is not known."""
    seconds: float | None
    """The wall-clock seconds of the edit; None if they are not known."""
    experts: str
    """The experts that were chosen, such as "erase 1.00"."""
    alignment: str
    """How the source was placed on its canvas."""
    error: str | None
    """Why the edit failed; None if it did not."""
    notes: str = ""
    """Notes on the image, such as another size than the source's."""


@dataclass(frozen=True, slots=True)
class ScoreLine(_Line):
    """One number of one edit, or the error in its place."""

    output: str
    """The name of the measured number."""
    rival: str | None
    """The set that it was compared with; None for a metric of a single edit."""
    value: float | None
    """The number; None if it could not be measured or does not apply."""
    error: str | None
    """Why the number could not be measured; None if it was."""
    notes: str
    """Notes on the number; without number and error, the reason why the metric does not apply."""

    @property
    def applies(self) -> bool:
        """Whether the metric applies, so that there is a number or an error."""
        return self.value is not None or self.error is not None


Line = TypeVar("Line", EditLine, ScoreLine)
Pair = tuple[str, int]
"""A sample and a seed. Comparisons are paired on them."""


class Table:
    """The results, looked up by benchmark, set and number."""

    def __init__(self, edits: Sequence[EditLine], scores: Sequence[ScoreLine]) -> None:
        self.edits, self.scores = tuple(edits), tuple(scores)
        self._edits: dict[tuple[str, str], dict[Pair, EditLine]] = {}
        self._scores: dict[tuple[str, str, str, str | None], dict[Pair, ScoreLine]] = {}
        for edit in self.edits:
            self._edits.setdefault((edit.benchmark, edit.arm), {})[edit.sample_id, edit.seed] = edit
        for one in self.scores:
            column = self._scores.setdefault((one.benchmark, one.arm, one.output, one.rival), {})
            column[one.sample_id, one.seed] = one

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """The names of the benchmarks."""
        return tuple(dict.fromkeys(benchmark for benchmark, _ in self._edits))

    def arms(self, benchmark: str) -> tuple[str, ...]:
        """The names of the arms that edited a benchmark."""
        return tuple(arm for of, arm in self._edits if of == benchmark)

    def kinds(self, benchmark: str) -> tuple[str, ...]:
        """The kinds of edit of a benchmark, sorted."""
        return tuple(sorted({edit.kind for edit in self.edits if edit.benchmark == benchmark}))

    def edits_of(self, benchmark: str, arm: str) -> Mapping[Pair, EditLine]:
        """The edits of a set by sample and seed."""
        return self._edits.get((benchmark, arm), {})

    def column(self, benchmark: str, arm: str, output: str, rival: str | None = None) -> Mapping[Pair, ScoreLine]:
        """One number of a set by sample and seed, errors included."""
        return self._scores.get((benchmark, arm, output, rival), {})

    def write(self, folder: Path) -> None:
        """Write both files into `folder`."""
        for name, kind, lines in ((EDITS_FILE, EditLine, self.edits), (SCORES_FILE, ScoreLine, self.scores)):
            _write(folder / name, kind, lines)

    @classmethod
    def read(cls, folder: Path) -> Table:
        """Read what `write` wrote. Raises `InputError`."""
        return cls(_read(folder / EDITS_FILE, EditLine), _read(folder / SCORES_FILE, ScoreLine))


def _write(path: Path, kind: type[Any], lines: Iterable[Any]) -> None:
    types = {"int": pyarrow.int64(), "float": pyarrow.float64(), "str": pyarrow.string()}
    schema = pyarrow.schema([(one.name, types[str(one.type).partition(" ")[0]]) for one in fields(kind)])
    table = pyarrow.Table.from_pylist([asdict(line) for line in lines], schema=schema)
    temporary = path.with_name(f".{path.name}.tmp")
    parquet.write_table(table, temporary, compression="zstd")
    temporary.replace(path)


def _read(path: Path, kind: type[Line]) -> list[Line]:
    try:
        return [kind(**row) for row in parquet.read_table(path).to_pylist()]
    except (OSError, TypeError, pyarrow.ArrowException) as error:
        raise InputError(f"{path} holds no results ({reason_of(error)}); give the folder of a finished run.") from error
