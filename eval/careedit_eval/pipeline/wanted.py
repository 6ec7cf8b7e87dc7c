"""Which scores a plan wants, and which of them can be made from the edits that exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from careedit_eval.pipeline.plan import Plan
from careedit_eval.pipeline.store import Store
from careedit_eval.pipeline.tasks import ScoreTask
from careedit_eval.records import EditRow, Metric, Sample, Score, lacking, score_key


@dataclass(frozen=True, slots=True)
class Wanted:
    """Scores of one edit, or of one edit and its rival, that are not in the store."""

    sample: Sample
    """The sample that is edited."""
    arm: str
    """The current name of the set that edits it."""
    edit: str
    """The key of the edit."""
    metrics: tuple[int, ...]
    """The indices of the metrics in the plan."""
    rival: str | None = None
    """The key of the edit that it is compared with; None for metrics of a single edit."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all edits that must exist."""
        return (self.edit,) if self.rival is None else (self.edit, self.rival)


def wanted_scores(plan: Plan, have: Mapping[str, Score]) -> Iterator[Wanted]:
    """Every edit with the metrics that have no result for it in `have`, by score key; pairs of edits come last."""
    metrics = (*plan.metrics, *plan.pairwise)
    alone = range(len(plan.metrics))
    paired = range(len(plan.metrics), len(metrics))
    pick = [i for i in alone if any(one.name == plan.suite.primary for one in metrics[i].spec.outputs)]
    for task in plan.tasks:
        for sample, key in zip(task.samples, task.keys, strict=True):
            # Edits with the seed for choosing experts get only the number that chooses.
            indices = alone if task.seed in plan.suite.seeds else pick
            lacks = _lacking(metrics, indices, sample, key, have) if sample.scored else ()
            if lacks:
                yield Wanted(sample, task.arm.name, key, lacks)
    if not plan.pairwise:
        return
    for rows in plan.benchmarks:
        for first, second in plan.pairs:
            for sample in rows.scored:
                for seed in plan.suite.seeds:
                    rival, key = (plan.keys[rows.name, arm, seed][sample.id] for arm in (first, second))
                    lacks = _lacking(metrics, paired, sample, key, have, rival)
                    if lacks:
                        yield Wanted(sample, second, key, lacks, rival)


def score_task(wanted: Wanted, store: Store, edits: Mapping[str, EditRow]) -> ScoreTask | None:
    """The task that makes these scores; None if one of their edits does not exist or has failed."""
    found = [edits.get(key) for key in wanted.keys]
    if any(row is None or row.error is not None for row in found):
        return None
    rows = [row for row in found if row is not None]
    # Another name of a set or kind does not make another edit.
    names = {"arm": wanted.arm, "kind": wanted.sample.kind, "group": wanted.sample.group}
    edit, *rival = (str(store.path(row)) for row in rows)
    return ScoreTask(
        wanted.sample, rows[0].model_copy(update=names), edit, wanted.metrics, wanted.rival, rival[0] if rival else None
    )


def _lacking(
    metrics: Sequence[Metric],
    indices: Sequence[int],
    sample: Sample,
    key: str,
    have: Mapping[str, Score],
    rival: str | None = None,
) -> tuple[int, ...]:
    return tuple(
        i
        for i in indices
        if not lacking(metrics[i], sample, rival=rival is not None)
        and not _is_result(have.get(score_key(key, metrics[i].spec, rival)), sample)
    )


def _is_result(row: Score | None, sample: Sample) -> bool:
    return row is not None and row.error is None and row.is_of(sample)
