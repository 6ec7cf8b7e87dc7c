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
    """Every error once, at its origin."""
    return _counted((str(line.error), line) for line in _failed(table))


@dataclass(frozen=True, slots=True)
class Failed:
    """The errors of one sample."""

    benchmark: str
    """The name of the benchmark."""
    sample_id: str
    """The id of the sample."""
    kind: str
    """The kind of edit of the sample."""
    times: int
    """The number of edits and numbers that failed."""
    errors: tuple[str, ...]
    """Each error once, with its sets and numbers."""


def failed_samples(table: Table) -> tuple[Failed, ...]:
    """The errors by sample, the sample with the most first: a sample that fails for every set is the benchmark's fault."""
    samples: dict[tuple[str, str], list[EditLine | ScoreLine]] = {}
    for line in _failed(table):
        samples.setdefault((line.benchmark, line.sample_id), []).append(line)
    found = []
    for (benchmark, sample_id), lines in samples.items():
        errors: dict[str, dict[str, None]] = {}
        for line in lines:
            what = line.arm if isinstance(line, EditLine) else f"{line.arm} ({line.output})"
            errors.setdefault(str(line.error), {})[what] = None
        said = tuple(f"{', '.join(sets)}: {error}" for error, sets in errors.items())
        found.append(Failed(benchmark, sample_id, lines[0].kind, len(lines), said))
    return tuple(sorted(found, key=lambda one: (-one.times, one.benchmark, one.sample_id)))


def _failed(table: Table) -> list[EditLine | ScoreLine]:
    """Every edit and number that failed; the numbers of a failed edit repeat its error and are left out."""
    lines: list[EditLine | ScoreLine] = [line for line in table.edits if line.error is not None]
    return lines + [line for line in table.scores if line.error is not None and not line.error.startswith("No edit: ")]


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
