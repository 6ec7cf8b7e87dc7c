"""Latency, evaluations and cost, as the editor reports them. A number that it does not report is an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from careedit_eval.errors import MetricError
from careedit_eval.metrics.base import ScoreItem, one_by_one
from careedit_eval.metrics.options import CostOptions, NoOptions
from careedit_eval.records import EditRow, Measurement, MetricSpec, Output


class Counted:
    """A number that is part of the edit's record."""

    needs: frozenset[str] = frozenset()

    def __init__(self, spec: MetricSpec, read: Callable[[EditRow], float | None], what: str) -> None:
        self.spec, self._read, self._what = spec, read, what

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""

        def measure(item: ScoreItem) -> Measurement:
            value = self._read(item.edit)
            if value is None:
                raise MetricError(f"The editor did not say {self._what}; use one that reports it.")
            return Measurement(values={self.spec.name: float(value)})

        return one_by_one(batch, measure)


def latency(_: NoOptions) -> Counted:
    """Wall-clock seconds of an edit, measured by its editor when the edit was made; information only."""
    return Counted(_spec("latency", "s", information=True), lambda edit: edit.seconds, "how long the edit took")


def nfe(_: NoOptions) -> Counted:
    """Evaluations of the transformer for an edit, with the previews of an early filter."""
    return Counted(_spec("nfe"), lambda edit: edit.nfe, "how often its transformer ran")


def cost(options: CostOptions) -> Counted:
    """The price of the seconds of an edit, in the currency of `per_gpu_hour`; information only, like the seconds."""
    per_gpu_hour = options.per_gpu_hour
    spec = _spec("cost", information=True).model_copy(update={"settings": {"per_gpu_hour": per_gpu_hour}})
    return Counted(
        spec,
        lambda edit: None if edit.seconds is None else edit.seconds * per_gpu_hour / 3600,
        "how long the edit took",
    )


def _spec(name: str, unit: str = "", *, information: bool = False) -> MetricSpec:
    output = Output(name=name, better="lower", unit=unit, information=information)
    return MetricSpec(name=name, outputs=(output,), protocol="careedit-v1")
