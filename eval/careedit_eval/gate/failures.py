"""The check of errors: only what failed for the candidate and not for the baseline counts against the candidate."""

from __future__ import annotations

from careedit_eval.compare.differences import ALL
from careedit_eval.gate.baseline import FrozenBenchmark
from careedit_eval.gate.verdict import Check, Outcome
from careedit_eval.runs import Run

NAMED = 3
"""Samples that a sentence names."""


def check_failures(run: Run, bound: float, candidate: str, frozen: FrozenBenchmark) -> Check:
    """Share of the candidate's edits and numbers that failed where the baseline's, at the same sample and seed, did not.

    Pairwise verdicts are left out: both sides share them.
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
    shown, most = told_apart(rate, bound)
    said = (
        f"{shown} of edits and numbers ({len(own)} of {total}) failed where the baseline's did not, at most {most} may"
    )
    if own:
        names = list(dict.fromkeys(own))
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        said += f"; samples {', '.join(names[:NAMED])}{more}"
    return Check("errors", frozen.name, None, ALL, rate, bound, outcome, said)


def told_apart(value: float, bound: float) -> tuple[str, str]:
    """Two shares as percentages, with as many digits as it takes to see which is larger."""
    for digits in range(1, 10):
        shown, limit = f"{value:.{digits}%}", f"{bound:.{digits}%}"
        if shown != limit or value == bound:
            break
    return shown, limit
