"""All rows looked at before the first is trained on: what is bad is named and counted, the rest is planned.

Bad rows are refused or skipped, never dropped in silence; which rows are held out is fixed by a hash of their source.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from careedit.editing import EditorBase
from careedit.editing.state import in_context_prompt
from careedit.errors import InputError
from careedit.files import write_atomic
from careedit.finetune.data.columns import Columns
from careedit.finetune.data.rows import BadRowError, Row, RowRules, read_row
from careedit.finetune.data.tables import Table
from careedit.images import decoding_notes, fit_panel
from careedit.images.marks import FLATTENED


@dataclass(frozen=True, slots=True)
class Problem:
    """One bad row."""

    row: int
    """Its number, from 1."""
    where: str
    """Its place: "metadata.jsonl, line 7"."""
    file: str
    """The file that is to blame; empty where there is none."""
    kind: str
    """In two words; what the summary counts."""
    reason: str
    """What is wrong."""

    def __str__(self) -> str:
        return f"row {self.row} ({self.where}{', ' + self.file if self.file else ''}): {self.reason}"


@dataclass(frozen=True, slots=True)
class Planned:
    """One good row."""

    index: int
    """Its position in the table, from 0."""
    panels: int
    """Panels of its canvas: 2, or 3 with a reference."""
    width: int
    """Of a panel, in pixels."""
    height: int
    """Of a panel, in pixels."""
    held_out: bool
    """Whether it is kept from training, for the validation loss."""

    @property
    def bucket(self) -> str:
        """Rows of one bucket have canvases of one size."""
        return f"{'held-out' if self.held_out else 'rows'}-{self.panels}x{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the rows of a table are good for."""

    rows: int
    """Rows in the table."""
    planned: tuple[Planned, ...]
    """The good ones."""
    problems: tuple[Problem, ...]
    """The bad ones."""
    notes: Mapping[str, int]
    """How many good rows have an oddity: what -> count."""

    def buckets(self, *, held_out: bool) -> dict[str, list[int]]:
        """Indices per bucket, of the rows held out or of the others."""
        found: dict[str, list[int]] = {}
        for row in self.planned:
            if row.held_out == held_out:
                found.setdefault(row.bucket, []).append(row.index)
        return found

    def summary(self) -> list[tuple[str, int]]:
        """(what, how many) for the table at the end."""
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
        """The plan as JSON."""
        return {
            "rows": self.rows,
            "planned": [asdict(row) for row in self.planned],
            "problems": [asdict(problem) for problem in self.problems],
            "notes": dict(self.notes),
        }

    @classmethod
    def from_document(cls, data: Mapping[str, Any]) -> Plan:
        """What `document` gave."""
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
    base: EditorBase,
    *,
    held_out: float = 0.05,
    done: Callable[[], None] = lambda: None,
) -> Plan:
    """Read every row. `held_out` is the share kept from training; rows on the same source picture stay together."""
    good: list[tuple[int, str, int, tuple[int, int]]] = []
    problems: list[Problem] = []
    notes: Counter[str] = Counter()
    for index in range(len(table)):
        try:
            row = read_row(table, index, columns, rules)
            spec = rules.panel
            fit = fit_panel(row.source.size, spec.size, spec.fit, spec.multiple)
            good.append((index, row.digest, 2 + (row.reference is not None), fit.panel))
            notes.update(_oddities(row, base))
        except BadRowError as error:
            problems.append(Problem(index + 1, table.where(index), error.file, error.kind, error.reason))
        done()
    kept = _held_out({digest for _, digest, _, _ in good}, held_out)
    planned = [Planned(index, panels, *size, digest in kept) for index, digest, panels, size in good]
    return Plan(len(table), tuple(planned), tuple(problems), dict(sorted(notes.items())))


def refusal(problems: tuple[Problem, ...], total: int, listing: Path) -> InputError:
    """The error for bad rows that are not to be skipped."""
    return InputError(
        f"{len(problems)} of {total} rows cannot be trained on, all listed in {listing}; mend them, or leave them out "
        f"with --on-bad skip. The first is {problems[0]}."
    )


def write_problems(problems: tuple[Problem, ...], path: Path) -> None:
    """All bad rows as CSV: row, where, file, kind, reason. Without any, an older list is taken away."""
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
    """The sources whose hash is small; at least one of several, never all."""
    if share <= 0 or len(digests) < 2:
        return set()
    ranked = sorted(digests)
    chosen = {digest for digest in digests if int(digest[:15], 16) < share * 16**15}
    return chosen - {ranked[-1]} or {ranked[0]}


def _oddities(row: Row, base: EditorBase) -> list[str]:
    """What is odd about a good row, each in a few words."""
    found = []
    prompt = in_context_prompt(row.instruction, references=int(row.reference is not None))
    ids = base.tokenizer_2(prompt, truncation=False, verbose=False)["input_ids"]
    if len(ids) > base.max_sequence_length:
        found.append(f"instruction cut at the base's {base.max_sequence_length} tokens")
    if getattr(base.tokenizer_2, "unk_token_id", None) in ids:
        found.append("words that the base does not know")
    if decoding_notes([row.source]) or decoding_notes([row.target]):
        found.append(FLATTENED)
    if row.source.size == row.target.size and _equal(row.source, row.target):
        found.append("target equal to the source")
    return found


def _equal(one: Image.Image, other: Image.Image) -> bool:
    return one.tobytes() == other.tobytes()
