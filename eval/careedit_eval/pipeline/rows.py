"""Rows that are looked up, not edited: the best single expert, and the oracle, which uses the best expert of each sample.

Both are chosen on `pick_seed` and measured on the suite's seeds. If they were chosen on the noise on which they are measured,
they would look too good (docs/decisions.md, 17).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from careedit_eval.pipeline.plan import Plan
from careedit_eval.results import EditLine, ScoreLine, Table


def derived_rows(plan: Plan, table: Table) -> Table:
    """The table with the derived rows that the suite asks for, and without the edits that were only made to choose."""
    kept = Table(
        [line for line in table.edits if line.seed in plan.suite.seeds],
        [line for line in table.scores if line.seed in plan.suite.seeds],
    )
    edits: list[EditLine] = list(kept.edits)
    scores: list[ScoreLine] = list(kept.scores)
    for row in ("best_single", "oracle"):
        if row not in plan.suite.rows or not plan.singles or row in plan.sets:
            continue
        for rows in plan.benchmarks:
            samples = [sample.id for sample in rows.scored]
            best = _best_per_sample(plan, table, rows.name, samples)
            if row == "best_single":
                best = dict.fromkeys(samples, _best_of_all(plan, table, rows.name, samples))
            edits += _copied(kept.edits, row, rows.name, best)
            scores += _copied(kept.scores, row, rows.name, best)
    return Table(edits, scores)


def _copied(lines: Sequence[EditLine] | Sequence[ScoreLine], row: str, benchmark: str, best: Mapping[str, str]) -> list:  # type: ignore[type-arg]
    """The lines of the chosen arms under the row's name."""
    return [
        replace(line, arm=row) for line in lines if line.benchmark == benchmark and best.get(line.sample_id) == line.arm
    ]


def _value(plan: Plan, table: Table, benchmark: str, arm: str, sample: str) -> float:
    """The primary number on the seed for choosing, where larger is better; a failure is the worst."""
    line = table.column(benchmark, arm, plan.suite.primary).get((sample, plan.suite.pick_seed))
    if line is None or line.value is None:
        return float("-inf")
    return -line.value if plan.outputs[plan.suite.primary].better == "lower" else line.value


def _best_per_sample(plan: Plan, table: Table, benchmark: str, samples: Sequence[str]) -> dict[str, str]:
    """The best expert of each sample; of equal experts the first."""
    return {
        sample: max(plan.singles, key=lambda arm: _value(plan, table, benchmark, arm, sample)) for sample in samples
    }


def _best_of_all(plan: Plan, table: Table, benchmark: str, samples: Sequence[str]) -> str:
    """The expert with the best mean; experts with fewer failures come first."""

    def mean(arm: str) -> tuple[int, float]:
        values = [_value(plan, table, benchmark, arm, sample) for sample in samples]
        good = [value for value in values if value != float("-inf")]
        return len(good), sum(good) / len(good) if good else float("-inf")

    return max(plan.singles, key=mean)
