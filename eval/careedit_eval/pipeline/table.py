"""From the rows of the store to the table of results: every requested edit and number, in order, none left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from careedit_eval.pipeline.plan import Plan
from careedit_eval.records import EditRow, Metric, Sample, Score, lacking, score_key
from careedit_eval.results import DOES_NOT_APPLY, EditLine, ScoreLine, Table

NOT_EDITED = "Nothing was edited; run the suite without leaving editing out."
"""The error of an edit that the store does not hold."""


def build_table(plan: Plan, edits: Mapping[str, EditRow], scores: Mapping[str, Score]) -> Table:
    """Look up every requested edit and score. What failed or is missing becomes an error."""
    edit_lines: list[EditLine] = []
    score_lines: list[ScoreLine] = []
    pairs = plan.pairs
    for rows in plan.benchmarks:
        for arm in plan.arms:
            for sample in rows.scored:
                for seed in plan.seeds_of(arm.name):
                    key = plan.keys[rows.name, arm.name, seed][sample.id]
                    edit = edits.get(key)
                    line = _edit_line(rows.name, arm.name, sample, seed, key, edit)
                    edit_lines.append(line)
                    for metric in plan.metrics:
                        score_lines += _score_lines(line, sample, metric, scores)
                    for rival in (first for first, second in pairs if second == arm.name):
                        other = plan.keys[rows.name, rival, seed][sample.id]
                        broken = edits.get(other)
                        why = None if broken is not None and broken.error is None else f"{rival} did not edit."
                        for metric in plan.pairwise:
                            score_lines += _score_lines(line, sample, metric, scores, (rival, other, why))
    return Table(edit_lines, score_lines)


def _edit_line(benchmark: str, arm: str, sample: Sample, seed: int, key: str, edit: EditRow | None) -> EditLine:
    where = (benchmark, arm, sample.id, seed, sample.kind, sample.group, sample.instruction, key)
    if edit is None:
        return EditLine(*where, None, None, None, "", "none", NOT_EDITED)
    notes = "; ".join(edit.notes)
    return EditLine(*where, edit.picture, edit.nfe, edit.seconds, _experts(edit), edit.alignment, edit.error, notes)


def _score_lines(
    edit: EditLine,
    sample: Sample,
    metric: Metric,
    scores: Mapping[str, Score],
    rival: tuple[str, str, str | None] | None = None,
) -> Iterator[ScoreLine]:
    """A line per number of the metric, if it applies to the sample."""
    if lacking(metric, sample, rival=rival is not None):
        return
    name, other, broken = rival or (None, None, None)
    row = scores.get(score_key(edit.edit_key, metric.spec, other))
    row = row if row is not None and row.is_of(sample) else None
    error = f"No edit: {edit.error}" if edit.error is not None else broken
    if error is None:
        error = "It was not measured; run the suite again." if row is None else row.error
    for output in metric.spec.outputs:
        reason = None if row is None or error is not None else row.not_applicable or row.absent.get(output.name)
        notes = f"{DOES_NOT_APPLY}{reason}" if reason is not None else "; ".join(row.notes) if row is not None else ""
        value = row.values.get(output.name) if row is not None and error is None else None
        silent = value is None and error is None and reason is None
        said = f"The metric gave no {output.name}." if silent else error
        where = (edit.benchmark, edit.arm, edit.sample_id, edit.seed, edit.kind, edit.group)
        yield ScoreLine(*where, output.name, name, value, said, notes)


def _experts(edit: EditRow) -> str:
    """The chosen experts from the trace, such as "erase 1.00"."""
    if edit.trace is None:
        return ""
    weights: dict[str, float] = json.loads(edit.trace).get("routing", {}).get("weights", {})
    return ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
