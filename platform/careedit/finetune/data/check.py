"""Checks of all rows before training: bad rows are named and counted, good rows are planned.

Bad rows are refused or skipped, never dropped silently. A hash of the source decides which rows are held out.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from careedit.editing import EditJob, Family
from careedit.errors import InputError
from careedit.files import write_atomic
from careedit.finetune.data.rows import BadRowError, Row, RowRules, read_row, reference_fit
from careedit.images import FLATTENED, decoding_notes, fit_panel
from careedit.tabular import Columns, Table


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that cannot be trained on."""

    row: int
    """Number of the row, counted from 1."""
    where: str
    """Place of the row, for example "metadata.jsonl, line 7"."""
    file: str
    """The file that is wrong; empty if the problem is not in a file."""
    kind: str
    """Kind of problem in two words, which the summary counts."""
    reason: str
    """What is wrong, as part of a sentence."""

    def __str__(self) -> str:
        return f"row {self.row} ({self.where}{', ' + self.file if self.file else ''}): {self.reason}"


@dataclass(frozen=True, slots=True)
class Planned:
    """A row that is trained on or held out."""

    index: int
    """Position of the row in the table, counted from 0."""
    panels: int
    """Number of its pictures, which are the panels of a canvas: 2, or 3 with a reference."""
    width: int
    """Width of a panel, in pixels."""
    height: int
    """Height of a panel, in pixels."""
    held_out: bool
    """Whether the row is kept for the validation loss."""
    reference: str = ""
    """Size of the reference's own panel, such as "64x96"; empty on a canvas, whose panels have one size. Default: empty."""

    @property
    def pixels(self) -> int:
        """Pixels of all its pictures."""
        width, height = (int(side) for side in (self.reference or f"{self.width}x{self.height}").split("x"))
        return 2 * self.width * self.height + (self.panels - 2) * width * height

    @property
    def bucket(self) -> str:
        """Name of the row's bucket. All rows of a bucket have pictures of the same sizes."""
        name = f"{'held-out' if self.held_out else 'rows'}-{self.panels}x{self.width}x{self.height}"
        return f"{name}-{self.reference}" if self.reference else name


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done with each row of a table."""

    rows: int
    """Number of rows in the table."""
    planned: tuple[Planned, ...]
    """The rows to train on or hold out."""
    problems: tuple[Problem, ...]
    """The rows that cannot be trained on."""
    notes: Mapping[str, int]
    """Number of good rows with each peculiarity, by name."""

    def buckets(self, *, held_out: bool) -> dict[str, list[int]]:
        """Row indices by bucket: of the held-out rows, or of the others."""
        found: dict[str, list[int]] = {}
        for row in self.planned:
            if row.held_out == held_out:
                found.setdefault(row.bucket, []).append(row.index)
        return found

    def summary(self) -> list[tuple[str, int]]:
        """(name, count) rows of the summary table."""
        held_out = sum(row.held_out for row in self.planned)
        counts = Counter(problem.kind for problem in self.problems)
        return [
            ("rows", self.rows),
            ("trained on", len(self.planned) - held_out),
            ("held out", held_out),
            *((f"bad: {kind}", count) for kind, count in counts.most_common()),
            *((f"note: {what}", count) for what, count in self.notes.items()),
        ]

    def document(self) -> dict[str, Any]:
        """The plan as JSON data."""
        return {
            "rows": self.rows,
            "planned": [asdict(row) for row in self.planned],
            "problems": [asdict(problem) for problem in self.problems],
            "notes": dict(self.notes),
        }

    @classmethod
    def from_document(cls, data: Mapping[str, Any]) -> Plan:
        """Read a plan that `document` made."""
        return cls(
            data["rows"],
            tuple(Planned(**row) for row in data["planned"]),
            tuple(Problem(**problem) for problem in data["problems"]),
            data["notes"],
        )


def check_rows(
    table: Table,
    columns: Columns,
    rules: RowRules,
    base: Family,
    *,
    held_out: float = 0.05,
    done: Callable[[], None] = lambda: None,
) -> Plan:
    """Read every row. `held_out` is the share kept for validation; rows with the same source image stay together."""
    good: list[tuple[str, Planned]] = []
    problems: list[Problem] = []
    notes: Counter[str] = Counter()
    for index in range(len(table)):
        try:
            row = read_row(table, index, columns, rules)
            spec = rules.panel
            fit = fit_panel(row.source.size, spec.size, spec.fit, spec.multiple)
            good.append((row.digest, _planned(index, row, fit.panel, rules, base)))
            notes.update(_peculiarities(row, base))
        except BadRowError as error:
            problems.append(Problem(index + 1, table.where(index), error.file, error.kind, error.reason))
        done()
    kept = _held_out({digest for digest, _ in good}, held_out)
    planned = [replace(row, held_out=digest in kept) for digest, row in good]
    return Plan(len(table), tuple(planned), tuple(problems), dict(sorted(notes.items())))


def refusal(problems: tuple[Problem, ...], total: int, listing: Path) -> InputError:
    """The error for bad rows that must not be skipped."""
    return InputError(
        f"{len(problems)} of {total} rows cannot be trained on, all listed in {listing}; correct them, or leave them out "
        f"with --on-bad skip. The first is {problems[0]}."
    )


def write_problems(problems: tuple[Problem, ...], path: Path) -> None:
    """Write all bad rows as CSV: row, where, file, kind, reason. Without bad rows, an older file is deleted."""
    if not problems:
        path.unlink(missing_ok=True)
        return
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ("row", "where", "file", "kind", "reason"))
    writer.writeheader()
    writer.writerows(asdict(problem) for problem in problems)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, stream.getvalue().encode("utf-8"))


def save_json(document: Any, path: Path) -> None:
    """Write JSON through a temporary name."""
    write_atomic(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode("utf-8"))


def _held_out(digests: set[str], share: float) -> set[str]:
    """The sources with the smallest hashes: at least one if there are several, never all."""
    if share <= 0 or len(digests) < 2:
        return set()
    ranked = sorted(digests)
    chosen = {digest for digest in digests if int(digest[:15], 16) < share * 16**15}
    return chosen - {ranked[-1]} or {ranked[0]}


def _planned(index: int, row: Row, panel: tuple[int, int], rules: RowRules, base: Family) -> Planned:
    """The plan of a good row. Raises `BadRowError` for a reference if the base takes none."""
    if row.reference is None:
        return Planned(index, 2, *panel, held_out=False)
    if not base.facts.references:
        raise BadRowError(
            "reference", "", f"the row has a reference, but the base {base.facts.name} takes none; remove the column"
        )
    width, height = reference_fit(row.reference, rules.panel).panel
    own = "" if base.facts.layout == "canvas" else f"{width}x{height}"
    return Planned(index, 3, *panel, held_out=False, reference=own)


def _peculiarities(row: Row, base: Family) -> list[str]:
    """What a user should know about a good row, each in a few words."""
    found = []
    references = () if row.reference is None else (row.reference,)
    prompt = base.prompt(EditJob(row.source, row.instruction, seed=0, steps=1, references=references))
    tokenizer = getattr(base, "tokenizer_2", base.tokenizer)  # FLUX.1's first tokenizer reads the pooled text only
    ids = tokenizer(prompt, truncation=False, verbose=False)["input_ids"]
    if len(ids) > base.max_sequence_length:
        found.append(f"instruction cut at the base's {base.max_sequence_length} tokens")
    if getattr(tokenizer, "unk_token_id", None) in ids:
        found.append("words that the base does not know")
    if decoding_notes([row.source]) or decoding_notes([row.target]):
        found.append(FLATTENED)
    if row.source.size == row.target.size and row.source.tobytes() == row.target.tobytes():
        found.append("target equal to the source")
    return found
