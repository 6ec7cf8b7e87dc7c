"""Restraint: edits that change nothing, and instructions that the router refuses (CAMILA, arXiv 2509.19731).

Both are right where the instruction does not apply to the image, and wrong everywhere else, so each has two numbers. A sample
with `feasible: false` among its extras is one whose instruction does not apply.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from careedit.record import Record
from careedit_eval.errors import MetricError
from careedit_eval.metrics.base import ScoreItem, one_by_one
from careedit_eval.metrics.options import NoOpOptions, RefusalOptions
from careedit_eval.metrics.pixels import RESIZED, difference
from careedit_eval.records import Measurement, Metric, MetricSpec, Output, Sample

ABSENT = {
    "feasible": "The sample's instruction does not apply to its image.",
    "infeasible": "The sample's instruction applies to its image.",
}


class Restraint:
    """1 if the edit holds back, else 0: a fault on feasible samples, and right on infeasible ones."""

    needs: frozenset[str] = frozenset()

    def __init__(self, spec: MetricSpec, held: Callable[[ScoreItem], tuple[bool, tuple[str, ...]]]) -> None:
        self.spec, self._held = spec, held

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""

        def measure(item: ScoreItem) -> Measurement:
            held, notes = self._held(item)
            here, there = ("feasible", "infeasible") if is_feasible(item.sample) else ("infeasible", "feasible")
            return Measurement(
                values={f"{self.spec.name}_{here}": float(held)},
                absent={f"{self.spec.name}_{there}": ABSENT[there]},
                notes=notes,
            )

        return one_by_one(batch, measure)


def is_feasible(sample: Sample) -> bool:
    """Whether the sample's instruction applies to its image, which it does unless the benchmark says otherwise."""
    return bool(sample.extras.get("feasible", True))


def no_op(options: NoOpOptions) -> Metric:
    """Whether the edit is the unchanged source."""

    def held(item: ScoreItem) -> tuple[bool, tuple[str, ...]]:
        source = item.pictures.source
        changed = np.abs(difference(item.edited, source)).max(axis=2) > options.tolerance
        return bool(changed.mean() <= options.share), item.resizing(source.size)

    return Restraint(_spec("no_op", options, RESIZED), held)


def refusal(options: RefusalOptions) -> Metric:
    """Whether the router states that the instruction cannot be carried out."""

    def held(item: ScoreItem) -> tuple[bool, tuple[str, ...]]:
        routing = json.loads(item.edit.trace or "{}").get("routing")
        if routing is None or "feasible" not in routing:
            raise MetricError("The editor did not say how it routed; use an editor that reports its trace.")
        return float(routing["feasible"]) < options.threshold, ()

    return Restraint(_spec("refusal", options, "none"), held)


def _spec(name: str, options: Record, preprocessing: str) -> MetricSpec:
    return MetricSpec(
        name=name,
        outputs=(
            Output(name=f"{name}_feasible", better="lower", passes=True),
            Output(name=f"{name}_infeasible", better="higher", passes=True),
        ),
        protocol="careedit-v1",
        preprocessing=preprocessing,
        reference="source" if name == "no_op" else "none",
        settings=options.model_dump(),
    )
