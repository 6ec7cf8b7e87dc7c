"""An A/B test in traffic next to the run that judged the same sets offline: one table, the same sets by hash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from careedit.errors import InputError
from careedit_eval.compare.differences import ALL
from careedit_eval.online.analysis import OnlineDifference, OnlineReport
from careedit_eval.report import Analysis, analyse
from careedit_eval.runs import Run
from careedit_eval.stats import Interval

OVERALL = "_overall"
"""The end of the name of a judge's number that a server's judge gives too."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A difference B - A on one benchmark of a run."""

    benchmark: str
    """The name of the benchmark."""
    output: str
    """The name of the number in the run, such as "vqa_overall"."""
    difference: float
    """The mean difference; for preferences B's share - 0.5."""
    interval: Interval | None
    """Its 95 % interval; None if the run has none for this number."""


@dataclass(frozen=True, slots=True)
class BothWays:
    """One number of two sets offline and in traffic."""

    live: OnlineDifference
    """The comparison of the arms in traffic."""
    set_a: str
    """The name in the run of the set of the arm in use."""
    set_b: str
    """The name in the run of the other arm's set."""
    offline: Estimate
    """The same comparison of the sets in the run."""

    @property
    def contradicts(self) -> bool | None:
        """Whether the two intervals have no value in common; None if one of them is missing.

        A contradiction is not an error: traffic has other pictures and instructions than a benchmark.
        """
        one, other = self.live.interval, self.offline.interval
        if one is None or other is None:
            return None
        return bool(one.high < other.low or other.high < one.low)


def both_ways(report: OnlineReport, run: Run) -> tuple[BothWays, ...]:
    """Every number that the report and the run have for the same two sets. Raises `InputError` if the run lacks a set."""
    names = {arm.arm: _name(arm.arm, arm.expert_set_sha256, run) for arm in report.arms if arm.weight > 0}
    pairs = tuple(dict.fromkeys((names[one.a], names[one.b]) for one in report.differences))
    for a, b in pairs:
        if a == b:
            raise InputError(f"Two arms serve the same set, {a!r}; a run has nothing to say about their difference.")
    analysis = analyse(run, pairs=pairs)
    return tuple(
        BothWays(live, names[live.a], names[live.b], offline)
        for live in report.differences
        for offline in _offline(live.output, names[live.a], names[live.b], run, analysis)
    )


def _name(arm: str, sha256: str, run: Run) -> str:
    if not sha256:
        raise InputError(
            f"The arm {arm!r} has no edits yet, so its set is not known; wait for traffic, or leave --run out."
        )
    for one in run.record.sets:
        # An arm of the run with a single expert has the set's hash too.
        if one.facts.get("sha256") == sha256 and one.name in {arm.name for arm in run.record.suite.sets}:
            return one.name
    raise InputError(
        f"The run {run.record.id} has no set with the hash {sha256[:12]}, which the arm {arm!r} serves; evaluate this set, or "
        "leave --run out."
    )


def _offline(output: str, a: str, b: str, run: Run, analysis: Analysis) -> Iterator[Estimate]:
    (compared,) = (one for one in analysis.compared if (one.a, one.b) == (a, b))
    if output == "judge":
        for one in compared.differences:
            if one.output.endswith(OVERALL) and one.kind == ALL and one.difference is not None:
                yield Estimate(one.benchmark, one.output, one.difference, one.interval)
    elif output == "failed":
        for benchmark in run.table.benchmarks:
            shares = [_failed(run, benchmark, name) for name in (a, b)]
            yield Estimate(benchmark, "failed", shares[1] - shares[0], None)
    elif output == "seconds":
        for speed in analysis.speed:
            if (speed.a, speed.b) == (a, b) and speed.found is not None:
                yield Estimate(speed.benchmark, "seconds", speed.found.seconds_b - speed.found.seconds_a, None)
    elif output == "preferred":
        for said in compared.preferences:
            ends = said.interval and Interval(said.interval.low - 0.5, said.interval.high - 0.5)
            yield Estimate(said.benchmark, said.output, said.share - 0.5, ends)


def _failed(run: Run, benchmark: str, name: str) -> float:
    lines = list(run.table.edits_of(benchmark, name).values())
    return sum(line.error is not None for line in lines) / max(1, len(lines))
