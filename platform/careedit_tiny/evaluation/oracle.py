"""Oracle compliance: the right result of every drawn scene is known, so an edit can be judged exactly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from careedit.files import json_digest
from careedit_eval.errors import MetricError
from careedit_eval.metrics.base import ScoreItem, one_by_one
from careedit_eval.metrics.options import NoOptions
from careedit_eval.records import Measurement, Metric, MetricSpec, Output
from careedit_tiny import Thresholds, judge, sample_from_dict


class OracleCompliance:
    """Followed, preserved, and both, each 0 or 1, by `careedit_tiny.judge`.

    A square edit of another size is resized to the source's. An edit of another shape is an error, because scenes are square.
    """

    needs = frozenset({"scene"})
    spec = MetricSpec(
        name="oracle",
        outputs=tuple(
            Output(name=f"oracle_{what}", better="higher", passes=True)
            for what in ("followed", "preserved", "compliant")
        ),
        protocol="tiny-v1",
        reference="scene",
        settings={"thresholds": json_digest(dataclasses.asdict(Thresholds()))[:16]},
    )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""
        return one_by_one(batch, self._measure)

    def _measure(self, item: ScoreItem) -> Measurement:
        try:
            scene = sample_from_dict(json.loads(str(item.sample.extras["scene"])))
        except (KeyError, TypeError, ValueError):
            raise MetricError(
                f"The scene of sample {item.sample.id!r} cannot be read; draw the benchmark again."
            ) from None
        size = item.edited.size
        if item.edited.width == item.edited.height:
            # The scene was drawn at the source's size; judging at 1024x1024 takes 16 s an edit.
            size = item.pictures.source.size
        verdict = judge(scene, item.edited_at(size))
        return Measurement(
            notes=item.resizing(size),
            values={
                "oracle_followed": float(verdict.followed),
                "oracle_preserved": float(verdict.preserved),
                "oracle_compliant": float(verdict.compliant),
            },
        )


def _build(_: NoOptions) -> Metric:
    return OracleCompliance()


ORACLE = (NoOptions, _build)
"""The metric as an entry point: the record of its options, and what is built from it."""
