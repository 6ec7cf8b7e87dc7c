"""The checks of a gate."""

from __future__ import annotations

from collections.abc import Iterator

from careedit.errors import InputError
from careedit_eval.compare.differences import ALL, difference_of, of_kind
from careedit_eval.gate.baseline import Baseline, FrozenBenchmark, freeze, load_baseline
from careedit_eval.gate.failures import check_failures, told_apart
from careedit_eval.gate.slowdown import check_slowdown
from careedit_eval.gate.verdict import Check, Outcome, Verdict
from careedit_eval.runs import Run
from careedit_eval.stats import non_inferiority
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
        for name, margin in gate.margins.items():
            yield _margin(run, baseline, facts.name, candidate, name, margin)
        yield _coverage(run, gate, candidate, frozen)
        yield check_failures(run, gate.max_error_rate, candidate, frozen)
        if gate.max_slowdown is not None:
            yield check_slowdown(run, gate.max_slowdown, candidate, baseline, facts.name)


def _coverage(run: Run, gate: Gate, candidate: str, frozen: FrozenBenchmark) -> Check:
    """Share of the baseline's rows that the candidate edited."""
    edits = run.table.edits_of(frozen.name, candidate)
    wanted = {(row.sample_id, row.seed) for row in frozen.rows if not row.edit_failed}
    there = sum(pair in edits and edits[pair].error is None for pair in wanted) / max(1, len(wanted))
    outcome: Outcome = "pass" if there >= gate.min_coverage else "worse"
    shown, least = told_apart(there, gate.min_coverage)
    said = f"{shown} of the rows that the baseline edited were edited, at least {least} must be"
    return Check("coverage", frozen.name, None, ALL, there, gate.min_coverage, outcome, said)


def _margin(run: Run, baseline: Baseline, benchmark: str, candidate: str, name: str, margin: float) -> Check:
    """Non-inferiority of one number, on all kinds or the one that `name` says ("clip_i/Add")."""
    output, _, kind = name.partition("/")
    kind = kind or ALL
    about = run.record.outputs[output]
    left = of_kind(baseline.column(benchmark, output), kind)
    right = of_kind(run.table.column(benchmark, candidate, output), kind)
    found = difference_of(benchmark, about, kind, left, right)
    where = f"{output} on {benchmark}" + ("" if kind == ALL else f" ({kind})")
    if found.interval is None:
        said = f"{where} has {found.images} source images on both sides, too few to judge"
        return Check("margin", benchmark, output, kind, None, margin, "inconclusive", said)
    higher = about.better != "lower"
    value = found.interval.low if higher else found.interval.high
    outcome = non_inferiority(found.interval, margin, higher_is_better=higher)
    said = (
        f"{where} differs by {found.difference:+.4f} ({found.interval.low:+.4f} to {found.interval.high:+.4f}, n = "
        f"{found.pairs}), the margin is {'-' if higher else '+'}{margin:g}"
    )
    return Check("margin", benchmark, output, kind, value, margin, outcome, said)
