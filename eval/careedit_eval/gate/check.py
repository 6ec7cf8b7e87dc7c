"""The checks of a gate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from careedit.errors import InputError
from careedit_eval.compare.differences import ALL, difference_of, of_kind
from careedit_eval.gate.baseline import Baseline, FrozenBenchmark, freeze, load_baseline
from careedit_eval.gate.verdict import Check, Outcome, Verdict
from careedit_eval.pipeline.timing import pairs_of
from careedit_eval.runs import Run
from careedit_eval.stats import images_needed, non_inferiority
from careedit_eval.stats.power import POWER
from careedit_eval.suite import Gate, Suite
from careedit_eval.timing import slowdown


def judge_run(run: Run) -> Verdict:
    """Check a run with its suite's gate. Raises `InputError` without a gate, or without anything to compare with."""
    gate, candidate, baseline = sides_of(run)
    for output, key in baseline.metrics.items():
        if run.record.metric_keys.get(output, key) != key:
            raise InputError(
                f"{output} is measured in another way than in the baseline, so they cannot be compared; freeze a new one."
            )
    return Verdict(candidate, baseline.set, tuple(_checks(run, gate, candidate, baseline)))


def sides_of(run: Run) -> tuple[Gate, str, Baseline]:
    """The gate of a run's suite, the name of the set that it judges, and the baseline. Raises `InputError` as `judge_run`."""
    suite = run.record.suite
    if suite.gate is None:
        raise InputError(f"The suite {suite.name!r} has no gate; add a gate with margins to it.")
    if not suite.gate.margins:
        raise InputError(f"The gate of {suite.name!r} has no margins, so no number is judged; give it one.")
    candidate = candidate_of(suite)
    return suite.gate, candidate, _baseline(run, suite.gate, candidate)


def candidate_of(suite: Suite) -> str:
    """The name of the set that a suite's gate judges."""
    named = suite.gate.set if suite.gate is not None else None
    return named or (suite.compare[0].b if suite.compare else suite.sets[0].name)


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
            if not _is_judged(run, name, facts.name):
                continue
            yield _margin(run, gate, baseline, facts.name, candidate, name)
        yield _coverage(run, gate, candidate, frozen)
        yield check_failures(run, gate.max_error_rate, candidate, frozen)
        if gate.max_slowdown is not None:
            yield check_slowdown(run, gate.max_slowdown, candidate, baseline, facts.name)


def _is_judged(run: Run, name: str, benchmark: str) -> bool:
    """Whether a margin applies to a benchmark: a margin of one kind applies where rows have that kind."""
    kind = name.partition("/")[2]
    here = [one.name for one in run.record.benchmarks if kind in run.table.kinds(one.name)]
    return not kind or not here or benchmark in here


def _coverage(run: Run, gate: Gate, candidate: str, frozen: FrozenBenchmark) -> Check:
    """The share of the baseline's rows that the candidate edited."""
    edits = run.table.edits_of(frozen.name, candidate)
    wanted = {(row.sample_id, row.seed) for row in frozen.rows if not row.edit_failed}
    there = sum(pair in edits and edits[pair].error is None for pair in wanted) / max(1, len(wanted))
    outcome: Outcome = "pass" if there >= gate.min_coverage else "worse"
    shown, least = distinct_percentages(there, gate.min_coverage)
    said = f"{shown} of the rows that the baseline edited were edited, at least {least} must be"
    return Check("coverage", frozen.name, None, ALL, there, gate.min_coverage, outcome, said)


def _margin(run: Run, gate: Gate, baseline: Baseline, benchmark: str, candidate: str, name: str) -> Check:
    """Non-inferiority of one number, on all kinds or on the kind in `name` ("clip_i/Add")."""
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
    return replace(check, value=value, sentence=f"{check.measured}{_why(check, gate.min_images)}")


def _why(check: Check, fewest: int) -> str:
    """The number of images behind a margin's outcome, or what it lacks."""
    images = check.images or 0
    if check.outcome != "inconclusive":
        return f", {images:,} pictures"
    if check.interval is None and images >= 2:
        return ": every value is 0, so nothing says how much an edit could change"
    if check.needed is None and images >= fewest:
        return ": a set that is as good cannot be shown to be so with a margin of 0"
    if check.needed is None:
        return f": needs {fewest:,} or more pictures, has {images:,}"
    if check.needed > images:
        return f": needs about {check.needed:,} pictures (power {POWER:.0%}), has {images:,}"
    return f": {check.needed:,} pictures are enough for a set that is as good, so it may be worse"


NAMED = 3
"""The maximum number of samples that a sentence names."""


def check_failures(run: Run, bound: float, candidate: str, frozen: FrozenBenchmark) -> Check:
    """The share of the candidate's edits and numbers that failed, but not for the baseline on the same sample and seed.

    Pairwise verdicts are left out, because they belong to both sides.
    """
    edit_failed = {(row.sample_id, row.seed) for row in frozen.rows if row.edit_failed}
    known = {
        (row.sample_id, row.seed, output)
        for row in frozen.rows
        for output in (*row.failed, *(name for name, value in row.values.items() if value is None))
    }
    edits = run.table.edits_of(frozen.name, candidate)
    scores = [
        line
        for line in run.table.scores
        if (line.benchmark, line.arm, line.rival) == (frozen.name, candidate, None) and line.applies
    ]
    own = [pair[0] for pair, line in edits.items() if line.error is not None and pair not in edit_failed]
    own += [
        line.sample_id
        for line in scores
        if line.error is not None and (line.sample_id, line.seed, line.output) not in known
    ]
    total = len(edits) + len(scores)
    rate = len(own) / max(1, total)
    outcome: Outcome = "pass" if rate <= bound else "worse"
    shown, most = distinct_percentages(rate, bound)
    said = (
        f"{shown} of edits and numbers ({len(own)} of {total}) failed where the baseline's did not, at most {most} may"
    )
    if own:
        names = list(dict.fromkeys(own))
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        said += f"; samples {', '.join(names[:NAMED])}{more}"
    return Check("errors", frozen.name, None, ALL, rate, bound, outcome, said)


def distinct_percentages(value: float, bound: float) -> tuple[str, str]:
    """Two shares as percentages, with enough digits to see which is larger."""
    for digits in range(1, 10):
        shown, limit = f"{value:.{digits}%}", f"{bound:.{digits}%}"
        if shown != limit or value == bound:
            break
    return shown, limit


def check_slowdown(run: Run, bound: float, candidate: str, baseline: Baseline, benchmark: str) -> Check:
    """The ratio of the candidate's seconds to the baseline's. Inconclusive if both were not timed together."""
    pair = None if run.timing is None else run.timing.pair(baseline.set, candidate)
    why = _unknown(run, candidate, baseline) if pair is None else pair.missing
    found = None
    if pair is not None and why is None:
        if _changed(run, baseline):
            why = f"the {baseline.set} of this run is not the one that was frozen, so their times do not compare"
        else:
            samples = [one for one in pair.samples if one.benchmark == benchmark]
            found = slowdown(samples)
            errors = [one.error for one in samples if one.error is not None]
            why = (
                None if found is not None else f"fewer than two samples were timed{f' ({errors[0]})' if errors else ''}"
            )
    if found is None:
        return Check(
            "slowdown",
            benchmark,
            None,
            ALL,
            None,
            bound,
            "inconclusive",
            f"no time to judge: {why.rstrip('.') if why else why}",
        )
    outcome: Outcome = "pass" if found.high <= bound else "worse" if found.low > bound else "inconclusive"
    said = (
        f"an edit takes {found.ratio:.3f} times the baseline's seconds ({found.low:.3f} to {found.high:.3f}, "
        f"{found.samples} samples timed by turns), at most {bound:g} are allowed"
    )
    if outcome == "inconclusive":
        said += "; more timing.samples make the interval narrower"
    return Check("slowdown", benchmark, None, ALL, found.high, bound, outcome, said)


def _unknown(run: Run, candidate: str, baseline: Baseline) -> str:
    if run.timing is None and (baseline.set, candidate) in pairs_of(run.record.suite, asked=True):
        return "nothing was timed in this run; run the suite again without leaving editing out"
    return (
        f"{candidate} and {baseline.set} were not timed side by side; add {baseline.set} to the suite's sets, and a "
        f"comparison with {candidate}"
    )


def _changed(run: Run, baseline: Baseline) -> bool:
    """Whether the set with the baseline's name has changed since."""
    facts = next((one.facts for one in run.record.sets if one.name == baseline.set), {})
    return facts.get("sha256") != baseline.facts.get("sha256")
