"""The first screen of the page: the sentence, a forest plot per gated number, six random and the six worst samples."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from careedit_eval.compare import Difference, Flip
from careedit_eval.compare.differences import ALL, difference_of, of_kind
from careedit_eval.compare.words import digits_for, spoken
from careedit_eval.gate import Baseline, Check, Outcome, Verdict, advice_of, candidate_of, sides_of
from careedit_eval.records import Output
from careedit_eval.report.analysis import Analysis
from careedit_eval.results import Pair, ScoreLine
from careedit_eval.runs import Run

SHOTS = 6
"""The number of random samples, and of worst samples, on the first screen."""
SEED = 0
"""The seed of the random samples: runs on the same rows show the same ones."""
WIDTH, EDGE = 200, 8
"""The width of a forest plot and the space at its ends, in pixels."""
LINES = 26
"""The number of lines that all forest plots together may have on the first screen."""
FARTHEST = 4.0
"""How many times the larger of margin and interval of all kinds a plot reaches at most; intervals of kinds may end outside."""


@dataclass(frozen=True, slots=True)
class Whisker:
    """One line of a forest plot."""

    label: str
    """The kind of edit, or "all"."""
    said: str
    """Estimate and interval in words."""
    images: int
    """The number of source images."""
    outcome: Outcome | None
    """The outcome of the line that the gate judges; None for the others."""
    ends: tuple[float, float, float] | None
    """The pixels of the worse end, the estimate and the better end of the interval; None without an interval."""


@dataclass(frozen=True, slots=True)
class Forest:
    """The forest plot of one gated number on one benchmark. Right is better for B, whichever direction is better."""

    name: str
    """The name of the number."""
    better: str
    """Which direction of the number is better."""
    benchmark: str
    """The name of the benchmark."""
    margin: tuple[float, str] | None
    """The pixel of the margin, and the margin in words; None for a number without one."""
    whiskers: tuple[Whisker, ...]
    """The judged line first, then the kinds, worst first."""
    left_out: int
    """The number of kinds without a line of their own."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the first screen shows."""

    sentence: str
    """What is decided, in one sentence."""
    outcome: Outcome | None
    """The outcome of the gate; None without a gate."""
    advice: str
    """What to do next, in one or two sentences."""
    a: str | None
    """The set in use; None if the run compares nothing."""
    b: str
    """The set that may replace it."""
    forests: tuple[Forest, ...]
    """The forest plots, in the order of the gate's margins."""
    others: tuple[Check, ...]
    """The checks of the gate that are not margins."""
    random: tuple[Flip, ...]
    """Six random samples, always the same for the same rows."""
    worst: tuple[Flip, ...]
    """The samples on which B loses most by the first judged number; ties are ordered by the next ones."""
    worst_by: str
    """The numbers that order the worst samples, in words."""


def decision_of(run: Run, analysis: Analysis) -> Decision:
    """The first screen of a run."""
    record, verdict = run.record, analysis.verdict
    suite = record.suite
    baseline = sides_of(run)[2] if verdict is not None else None
    b = verdict.candidate if verdict is not None else candidate_of(suite)
    first = analysis.compared[0] if analysis.compared else None
    if verdict is None and first is not None:
        b = first.b
    a = verdict.baseline if verdict is not None else first.a if first is not None else None
    sides = Sides(run, a, b, baseline)
    checks = [check for check in verdict.checks if check.name == "margin"] if verdict is not None else []
    judged = [(check.benchmark, record.outputs[str(check.output)], check) for check in checks]
    plots: list[tuple[str, Output, Check | None]] = [*judged] or [
        (facts.name, record.outputs[suite.primary], None) for facts in record.benchmarks if a is not None
    ]
    room = max(0, LINES // max(1, len(plots)) - 3)
    forests = tuple(_forest(sides, *plot, room=room) for plot in plots)
    ranked_by = list(dict.fromkeys([record.outputs[suite.primary], *(output for _, output, _ in judged)]))
    flips = sides.flips(ranked_by)
    chosen = random.Random(SEED).sample(sorted(flips, key=_where), min(SHOTS, len(flips)))
    narrowed = record.narrowed.reason if record.narrowed is not None else None
    return Decision(
        sentence=_sentence(verdict, a, b, forests, suite.primary),
        outcome=verdict.outcome if verdict is not None else None,
        advice=advice_of(verdict, narrowed) if verdict is not None else "The suite has no gate, so nothing is decided.",
        a=a,
        b=b,
        forests=forests,
        others=tuple(check for check in verdict.checks if check.name != "margin") if verdict is not None else (),
        random=tuple(chosen),
        worst=tuple(flips[:SHOTS]),
        worst_by=", then ".join(output.name for output in ranked_by),
    )


@dataclass(frozen=True)
class Sides:
    """The numbers of both sides of a decision. The side in use may be a frozen baseline, or missing."""

    run: Run
    """The run that is decided about."""
    a: str | None
    """The set in use; None if nothing is compared."""
    b: str
    """The set that may replace it."""
    baseline: Baseline | None
    """The frozen baseline, which has the numbers of `a` then; None: the run has them."""

    def left(self, benchmark: str, output: str) -> Mapping[Pair, ScoreLine]:
        """A number of the set in use."""
        if self.a is None:
            return {}
        if self.baseline is not None and self.a not in self.run.table.arms(benchmark):
            return self.baseline.column(benchmark, output)
        return self.run.table.column(benchmark, self.a, output)

    def right(self, benchmark: str, output: str) -> Mapping[Pair, ScoreLine]:
        """A number of the set that may replace it."""
        return self.run.table.column(benchmark, self.b, output)

    def flips(self, outputs: Sequence[Output]) -> list[Flip]:
        """Every sample, those on which B loses most first: by the first number; equal ones by the next."""
        found: list[tuple[tuple[float, ...], Flip]] = []
        for benchmark in self.run.table.benchmarks:
            columns = [(one, self.left(benchmark, one.name), self.right(benchmark, one.name)) for one in outputs]
            for pair, edit in self.run.table.edits_of(benchmark, self.b).items():
                gains = tuple(_gain(one, left.get(pair), right.get(pair), self.a) for one, left, right in columns)
                before, after = (side.get(pair) for side in columns[0][1:])
                a, b = (None if line is None else line.value for line in (before, after))
                found.append((gains, Flip(benchmark, *pair, edit.kind, a, b, gains[0])))
        return [flip for _, flip in sorted(found, key=lambda one: (one[0], _where(one[1])))]


def _gain(output: Output, before: ScoreLine | None, after: ScoreLine | None, a: str | None) -> float:
    """How much better B is on a sample. Without a set in use, how good it is. A failure of B is the largest loss."""
    sign = -1.0 if output.better == "lower" else 1.0
    if after is not None and after.error is not None:
        return float("-inf") if before is None or before.error is None else 0.0
    if after is None or after.value is None:
        return 0.0
    if a is None:
        return sign * after.value
    if before is None or before.value is None:
        return float("inf") if before is not None and before.error is not None else 0.0
    return sign * (after.value - before.value)


def _where(flip: Flip) -> tuple[str, str, int]:
    return flip.benchmark, flip.sample_id, flip.seed


def _forest(sides: Sides, benchmark: str, output: Output, check: Check | None, *, room: int) -> Forest:
    kind = check.kind if check is not None else ALL
    left, right = sides.left(benchmark, output.name), sides.right(benchmark, output.name)
    kinds = sides.run.table.kinds(benchmark) if kind == ALL else ()
    lines = [
        difference_of(benchmark, output, one, of_kind(left, one), of_kind(right, one))
        for one in (kind, *(kinds if len(kinds) > 1 else ()))
    ]
    whole, parts = lines[0], [one for one in lines[1:] if one.difference is not None]
    sign = -1.0 if output.better == "lower" else 1.0
    parts.sort(key=lambda one: sign * (one.difference or 0.0))
    bound = check.bound if check is not None else 0.0
    reach = _reach([whole, *parts[:room]], bound)

    def at(value: float) -> float:
        """The pixel of a difference; right is better."""
        place = WIDTH / 2 + sign * value / reach * (WIDTH / 2 - EDGE)
        return round(min(max(place, 1.0), WIDTH - 1.0), 1)

    def whisker(one: Difference, outcome: Outcome | None) -> Whisker:
        ends = None
        if one.interval is not None and one.difference is not None:
            low, high = sorted((at(one.interval.low), at(one.interval.high)))
            ends = (low, at(one.difference), high)
        digits = digits_for(bound or abs(whole.difference or 0.0) or 0.01)
        said = (
            "no numbers on both sides"
            if one.difference is None
            else spoken(one.difference, one.interval, passes=output.passes, digits=digits)
        )
        return Whisker(one.kind, said, one.images, outcome, ends)

    margin = None
    if check is not None:
        sized = f"{100 * bound:g} points" if output.passes else f"{bound:g}"
        margin = (at(-sign * bound), f"margin {'+' if sign < 0 else '−'}{sized}" if bound else "margin 0")
    shown = (
        whisker(whole, check.outcome if check is not None else None),
        *(whisker(one, None) for one in parts[:room]),
    )
    return Forest(output.name, output.better, benchmark, margin, shown, max(0, len(parts) - room))


def _reach(lines: Sequence[Difference], bound: float) -> float:
    """The difference at the ends of a plot."""
    ends = [
        [abs(end) for end in (*one.interval, one.difference)]
        for one in lines
        if one.interval and one.difference is not None
    ]
    main = max([bound, *(ends[0] if ends else [])])
    return min(max([main, *(end for one in ends for end in one)]), FARTHEST * main) or 1.0


def _sentence(verdict: Verdict | None, a: str | None, b: str, forests: Iterable[Forest], primary: str) -> str:
    if verdict is not None:
        return verdict.line
    if a is None:
        return f"Nothing is compared: the run has no second set next to {b}."
    said = "; ".join(
        f"{one.name} on {one.benchmark} {one.whiskers[0].said}, {one.whiskers[0].images:,} pictures" for one in forests
    )
    return f"{b} against {a}: {said}."
