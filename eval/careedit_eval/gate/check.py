"""The checks of a gate and their verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from careedit.errors import InputError
from careedit_eval.compare.differences import ALL, difference_of, of_kind
from careedit_eval.gate.baseline import Baseline, freeze, load_baseline
from careedit_eval.runs import Run
from careedit_eval.stats import non_inferior
from careedit_eval.suite import Gate


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold."""

    name: str
    """"margin", "coverage", "errors", "slowdown"."""
    benchmark: str
    """The benchmark."""
    output: str | None
    """The number, for a margin."""
    kind: str
    """Kind of edit."""
    value: float | None
    """What was found: for a margin the end of the interval that must not be worse than it."""
    bound: float
    """What it is held against."""
    passed: bool
    """Whether it holds."""
    sentence: str
    """The same in words."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says."""

    candidate: str
    """Who was judged."""
    baseline: str
    """Against whom."""
    checks: tuple[Check, ...]
    """Everything that was looked at."""

    @property
    def passed(self) -> bool:
        """Whether all of it holds."""
        return all(check.passed for check in self.checks)

    @property
    def line(self) -> str:
        """The verdict in one line."""
        failed = [check for check in self.checks if not check.passed]
        if not failed:
            return f"PASS: {self.candidate} is not worse than {self.baseline} ({len(self.checks)} checks)."
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        return f"FAIL: {self.candidate} against {self.baseline}: {failed[0].sentence}{more}."

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "schema_version": 1,
            "passed": self.passed,
            "line": self.line,
            "candidate": self.candidate,
            "baseline": self.baseline,
            "checks": [asdict(check) for check in self.checks],
        }


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
    table = run.table
    for facts in run.record.benchmarks:
        frozen = next((one for one in baseline.benchmarks if one.name == facts.name), None)
        if frozen is None or frozen.fingerprint != facts.fingerprint:
            raise InputError(
                f"The baseline was measured on other rows than {facts.name} has now, so they cannot be compared; freeze "
                "a new one."
            )
        edits = table.edits_of(facts.name, candidate)
        for name, margin in gate.margins.items():
            yield _margin(run, baseline, facts.name, candidate, name, margin)
        wanted = {(row.sample_id, row.seed) for row in frozen.rows}
        there = sum(pair in edits and edits[pair].error is None for pair in wanted) / max(1, len(wanted))
        yield Check(
            "coverage", facts.name, None, ALL, there, gate.min_coverage, there >= gate.min_coverage,
            f"{there:.1%} of the baseline's rows were edited, at least {gate.min_coverage:.1%} must be",
        )  # fmt: skip
        scores = [line for line in table.scores if (line.benchmark, line.arm) == (facts.name, candidate)]
        errors = [line.error for line in edits.values()] + [line.error for line in scores]
        rate = sum(error is not None for error in errors) / max(1, len(errors))
        yield Check(
            "errors", facts.name, None, ALL, rate, gate.max_error_rate, rate <= gate.max_error_rate,
            f"{rate:.1%} of edits and scores failed, at most {gate.max_error_rate:.1%} may",
        )  # fmt: skip
        seconds = [line.seconds for line in edits.values() if line.seconds is not None]
        if gate.max_slowdown is not None:
            ratio = median(seconds) / frozen.seconds if seconds and frozen.seconds else None
            yield Check(
                "slowdown", facts.name, None, ALL, ratio, gate.max_slowdown, ratio is not None and ratio <= gate.max_slowdown,
                "no seconds are known of both sides" if ratio is None
                else f"an edit takes {ratio:.2f} times the baseline's seconds, at most {gate.max_slowdown:.2f} are allowed",
            )  # fmt: skip


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
        return Check("margin", benchmark, output, kind, None, margin, False, said)
    higher = about.better != "lower"
    value = found.interval.low if higher else found.interval.high
    passed = non_inferior(found.interval, margin, higher_is_better=higher)
    said = (
        f"{where} differs by {found.difference:+.4f} ({found.interval.low:+.4f} to {found.interval.high:+.4f}, n = "
        f"{found.pairs}), the margin is {'-' if higher else '+'}{margin:g}"
    )
    return Check("margin", benchmark, output, kind, value, margin, passed, said)
