"""How long edits take, by pair of sets, for the page and the command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from careedit_eval.timing import Slowdown, TimingRecord, slowdown


@dataclass(frozen=True, slots=True)
class Speed:
    """The times of one pair of sets on one benchmark."""

    a: str
    """The name of the set in use."""
    b: str
    """The name of the set that may replace it."""
    benchmark: str
    """The name of the benchmark; "" if the pair was not timed."""
    found: Slowdown | None
    """The ratio of their seconds; None if it could not be measured."""
    missing: str | None
    """Why no ratio could be computed; None if there is one."""
    failed: int
    """The number of samples that could not be timed."""
    edits: int
    """The number of edits of each set per sample."""
    load: tuple[float, float] | None
    """The lowest and highest load average of the machine during the timing."""
    machine: Mapping[str, str]
    """The kind of machine that measured."""

    @property
    def sentence(self) -> str:
        """The times in words."""
        if self.found is None:
            return f"{self.b} and {self.a} were not timed: {self.missing}"
        one = self.found
        failed = f"; {self.failed} could not be timed" if self.failed else ""
        return (
            f"an edit by {self.b} takes {one.ratio:.3f} times the seconds of {self.a} ({one.low:.3f} to {one.high:.3f}; "
            f"{one.seconds_b:.3g} s against {one.seconds_a:.3g} s), {one.samples} samples of {self.benchmark}, "
            f"{self.edits} edits by each set on each, by turns{failed}"
        )

    @property
    def where(self) -> str:
        """The machine in words."""
        facts = [f"{name} {value}" for name, value in self.machine.items()]
        if self.load is not None:
            facts.append(f"load average {self.load[0]:g} to {self.load[1]:g}")
        return ", ".join(facts)


def speeds_of(timing: TimingRecord | None) -> tuple[Speed, ...]:
    """Every pair of a timing on every benchmark."""
    found: list[Speed] = []
    for pair in timing.pairs if timing is not None else ():
        edits = 2 * timing.rounds if timing is not None else 0
        if pair.missing is not None:
            found.append(Speed(pair.a, pair.b, "", None, pair.missing, 0, edits, None, pair.machine))
        for benchmark in dict.fromkeys(one.benchmark for one in pair.samples):
            samples = [one for one in pair.samples if one.benchmark == benchmark]
            errors = [one.error for one in samples if one.error is not None]
            ratio = slowdown(samples)
            missing = None if ratio is not None else errors[0] if errors else "it takes two samples or more."
            loads = [one.load for one in samples if one.load is not None]
            load = (min(loads), max(loads)) if loads else None
            found.append(Speed(pair.a, pair.b, benchmark, ratio, missing, len(errors), edits, load, pair.machine))
    return tuple(found)
