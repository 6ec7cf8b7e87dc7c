"""The check of time: the interval of the run's own timing, never seconds of the store."""

from __future__ import annotations

from careedit_eval.compare.differences import ALL
from careedit_eval.gate.baseline import Baseline
from careedit_eval.gate.verdict import Check, Outcome
from careedit_eval.pipeline.timing import pairs_of
from careedit_eval.runs import Run
from careedit_eval.timing import slowdown


def check_slowdown(run: Run, bound: float, candidate: str, baseline: Baseline, benchmark: str) -> Check:
    """How many times the baseline's seconds the candidate takes. Inconclusive where both were not timed side by side."""
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
    """Whether the set of the baseline's name is another one today."""
    facts = next((one.facts for one in run.record.sets if one.name == baseline.set), {})
    return facts.get("sha256") != baseline.facts.get("sha256")
