"""Errors, notes, and metrics that do not apply: how often each occurs, and on which samples."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from careedit_eval.results import DOES_NOT_APPLY, EditLine, ScoreLine, Table

NAMED = 5
"""The number of samples that are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One sentence about edits or numbers, with how often it occurs."""

    what: str
    """The sentence, such as an error."""
    times: int
    """How often the sentence occurs in the run."""
    arms: tuple[str, ...]
    """The names of the sets that it concerns."""
    samples: tuple[str, ...]
    """The ids of its first samples."""
    sample_count: int
    """The number of samples that it concerns."""

    @property
    def where(self) -> str:
        """Sets and samples in words."""
        more = self.sample_count - len(self.samples)
        names = ", ".join(self.samples) + (f" and {more} more" if more > 0 else "")
        sets = f"set{'s' if len(self.arms) > 1 else ''} {', '.join(self.arms)}"
        return f"{sets}; sample{'s' if self.sample_count > 1 else ''} {names}"


def errors_of(table: Table) -> tuple[Remark, ...]:
    """Every error once, at its origin: the numbers of a failed edit repeat its error and are left out."""
    lines: list[EditLine | ScoreLine] = [*table.edits]
    lines += [line for line in table.scores if line.error is not None and not line.error.startswith("No edit: ")]
    return _counted((line.error, line) for line in lines if line.error is not None)


def not_applicable_of(table: Table) -> tuple[Remark, ...]:
    """Why metrics do not apply to samples, with the number's name."""
    lines = [line for line in table.scores if not line.applies]
    return _counted((f"{line.output} {line.notes.removeprefix(DOES_NOT_APPLY)}", line) for line in lines)


def notes_of(table: Table) -> tuple[Remark, ...]:
    """Every note. Sizes that differ between samples are written as WxH."""
    found: list[tuple[str, EditLine | ScoreLine]] = []
    for line in table.edits:
        found += [(note, line) for note in line.notes.split("; ") if note]
    for one in table.scores:
        if one.applies:
            found += [(f"{one.output}: {note}", one) for note in one.notes.split("; ") if note]
    sizes: dict[str, set[str]] = {}
    for note, _ in found:
        sizes.setdefault(_sizeless(note), set()).add(note)
    return _counted((note if len(sizes[_sizeless(note)]) == 1 else _sizeless(note), line) for note, line in found)


def _sizeless(note: str) -> str:
    return re.sub(r"\b\d+x\d+\b", "WxH", note)


def _counted(found: Iterable[tuple[str, EditLine | ScoreLine]]) -> tuple[Remark, ...]:
    at: dict[str, list[EditLine | ScoreLine]] = {}
    for what, line in found:
        at.setdefault(what, []).append(line)
    remarks = []
    for what, lines in at.items():
        samples = tuple(dict.fromkeys(line.sample_id for line in lines))
        arms = tuple(dict.fromkeys(line.arm for line in lines))
        remarks.append(Remark(what, len(lines), arms, samples[:NAMED], len(samples)))
    return tuple(sorted(remarks, key=lambda one: -one.times))
