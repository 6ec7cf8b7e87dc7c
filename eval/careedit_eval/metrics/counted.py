"""Latency, evaluations and cost: what the editor says of itself; where it says nothing, an error and no number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from careedit_eval.errors import MetricError
from careedit_eval.metrics.base import ScoreItem, one_by_one
from careedit_eval.records import EditRow, Measurement, MetricSpec, Output


class Counted:
    """A number of the edit's own record."""

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


def latency() -> Counted:
    """Wall-clock seconds of an edit, as its editor measured them when the edit was made: information only."""
    return Counted(_spec("latency", "s", information=True), lambda edit: edit.seconds, "how long the edit took")


def nfe() -> Counted:
    """Evaluations of the transformer for an edit, an early filter's previews included."""
    return Counted(_spec("nfe"), lambda edit: edit.nfe, "how often its transformer ran")


def cost(per_gpu_hour: float) -> Counted:
    """Seconds of an edit at a price per hour of its device, in the price's currency: information only, as its seconds are."""
    if not 0 < per_gpu_hour < 1e6:
        raise MetricError(
            f"The price of a GPU hour is {per_gpu_hour:g}; give what an hour of the device costs, above 0."
        )
    spec = _spec("cost", information=True).model_copy(update={"settings": {"per_gpu_hour": per_gpu_hour}})
    return Counted(
        spec,
        lambda edit: None if edit.seconds is None else edit.seconds * per_gpu_hour / 3600,
        "how long the edit took",
    )


def _spec(name: str, unit: str = "", *, information: bool = False) -> MetricSpec:
    output = Output(name=name, better="lower", unit=unit, information=information)
    return MetricSpec(name=name, outputs=(output,), protocol="careedit-v1")
