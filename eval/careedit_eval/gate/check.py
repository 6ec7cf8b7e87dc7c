"""The checks of a gate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from statistics import median

from careedit.errors import InputError
from careedit_eval.compare.differences import ALL, difference_of, of_kind
from careedit_eval.gate.baseline import Baseline, FrozenBenchmark, freeze, load_baseline
from careedit_eval.gate.verdict import Check, Outcome, Verdict
from careedit_eval.runs import Run
from careedit_eval.stats import images_needed, non_inferiority
from careedit_eval.stats.power import POWER
from careedit_eval.suite import Gate


def judge_run(run: Run) -> Verdict:
    """Hold a run against its suite's gate. Raises `InputError` where there is none, or nothing to compare with."""
    suite = run.record.suite
    if suite.gate is None:
        raise InputError(f"The suite {suite.name!r} has no gate; give it one, with margins.")
    gate = suite.gate
    candidate = gate.set or (suite.compare[0].b if suite.compare else suite.sets[0].name)
    baseline = _baseline(run, gate, candidate)
    for output, key in baseline.metrics.items():
        if run.record.metric_keys.get(output, key) != key:
            raise InputError(
                f"{output} is measured in another way than in the baseline, so they cannot be compared; freeze a new one."
            )
    return Verdict(candidate, baseline.set, tuple(_checks(run, gate, candidate, baseline)))


def _baseline(run: Run, gate: Gate, candidate: str) -> Baseline:
    if gate.baseline is not None:
        return load_baseline((run.folder / run.record.suite_folder / gate.baseline).resolve())
    compare = run.record.suite.compare
    if not compare or compare[0].a == candidate:
        raise InputError("The gate has neither a baseline nor a comparison to take one from; give it one of them.")
    return freeze(run, compare[0].a, [name.partition("/")[0] for name in gate.margins])


def _checks(run: Run, gate: Gate, candidate: str, baseline: Baseline) -> Iterator[Check]:
    for facts in run.record.benchmarks:
        frozen = next((one for one in baseline.benchmarks if one.name == facts.name), None)
        if frozen is None or frozen.fingerprint != facts.fingerprint:
            raise InputError(
                f"The baseline was measured on other rows than {facts.name} has now, so they cannot be compared; freeze "
                "a new one."
            )
        for name in gate.margins:
            yield _margin(run, gate, baseline, facts.name, candidate, name)
        yield _coverage(run, gate, candidate, frozen)
        yield _errors(run, gate, candidate, frozen)
        if gate.max_slowdown is not None:
            yield _slowdown(run, gate.max_slowdown, candidate, frozen)


def _coverage(run: Run, gate: Gate, candidate: str, frozen: FrozenBenchmark) -> Check:
    """Share of the baseline's rows that the candidate edited."""
    edits = run.table.edits_of(frozen.name, candidate)
    wanted = {(row.sample_id, row.seed) for row in frozen.rows}
    there = sum(pair in edits and edits[pair].error is None for pair in wanted) / max(1, len(wanted))
    outcome: Outcome = "pass" if there >= gate.min_coverage else "worse"
    said = f"{there:.1%} of the baseline's rows were edited, at least {gate.min_coverage:.1%} must be"
    return Check("coverage", frozen.name, None, ALL, there, gate.min_coverage, outcome, said)


def _errors(run: Run, gate: Gate, candidate: str, frozen: FrozenBenchmark) -> Check:
    """Share of the candidate's edits and scores that failed."""
    edits = run.table.edits_of(frozen.name, candidate)
    scores = [line for line in run.table.scores if (line.benchmark, line.arm) == (frozen.name, candidate)]
    errors = [line.error for line in edits.values()] + [line.error for line in scores]
    rate = sum(error is not None for error in errors) / max(1, len(errors))
    outcome: Outcome = "pass" if rate <= gate.max_error_rate else "worse"
    said = f"{rate:.1%} of edits and scores failed, at most {gate.max_error_rate:.1%} may"
    return Check("errors", frozen.name, None, ALL, rate, gate.max_error_rate, outcome, said)


def _slowdown(run: Run, bound: float, candidate: str, frozen: FrozenBenchmark) -> Check:
    """Median seconds of an edit over the baseline's."""
    edits = run.table.edits_of(frozen.name, candidate)
    seconds = [line.seconds for line in edits.values() if line.seconds is not None]
    if not seconds or not frozen.seconds:
        said = "no seconds are known of both sides"
        return Check("slowdown", frozen.name, None, ALL, None, bound, "inconclusive", said)
    ratio = median(seconds) / frozen.seconds
    outcome: Outcome = "pass" if ratio <= bound else "worse"
    said = f"an edit takes {ratio:.2f} times the baseline's seconds, at most {bound:.2f} are allowed"
    return Check("slowdown", frozen.name, None, ALL, ratio, bound, outcome, said)


def _margin(run: Run, gate: Gate, baseline: Baseline, benchmark: str, candidate: str, name: str) -> Check:
    """Non-inferiority of one number, on all kinds or the one that `name` says ("clip_i/Add")."""
    output, _, kind = name.partition("/")
    kind, margin, about = kind or ALL, gate.margins[name], run.record.outputs[output]
    left = of_kind(baseline.column(benchmark, output), kind)
    right = of_kind(run.table.column(benchmark, candidate, output), kind)
    found = difference_of(benchmark, about, kind, left, right)
    higher = about.better != "lower"
    outcome: Outcome = "inconclusive"
    if found.interval is not None and found.images >= gate.min_images:
        outcome = non_inferiority(found.interval, margin, higher_is_better=higher)
    needed = None if found.spread is None else images_needed(found.spread, margin)
    check = Check(
        "margin", benchmark, output, kind, None, margin, outcome, "",
        found.difference, found.interval, about.better, about.passes, found.images,
        None if needed is None else max(needed, gate.min_images),
    )  # fmt: skip
    value = None if found.interval is None else found.interval.low if higher else found.interval.high
    return replace(check, value=value, sentence=f"{check.short} on {benchmark}{_why(check, gate.min_images)}")


def _why(check: Check, fewest: int) -> str:
    """What an inconclusive margin lacks."""
    images = check.images or 0
    if check.outcome != "inconclusive":
        return ""
    if check.interval is None and images >= 2:
        return ": every value is 0, so nothing says how much an edit could change"
    if check.needed is None and images >= fewest:
        return ": a set that is as good cannot be shown to be so with a margin of 0"
    if check.needed is None:
        return f": needs {fewest:,} or more pictures, has {images:,}"
    if check.needed > images:
        return f": needs about {check.needed:,} pictures (power {POWER:.0%}), has {images:,}"
    return f": {check.needed:,} pictures are enough for a set that is as good, so it may be worse"
