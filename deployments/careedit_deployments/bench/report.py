"""What a run says: figures, goals, verdicts, and everything that they were computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from careedit.bench.report import Goal
from careedit.bench.timing import Figure, differences, ratios
from careedit.stats import percentile
from careedit_deployments.bench.measure import Replayed, Throughput, p95s
from careedit_deployments.bench.tenants import TenantsLoad

VERSION = 1
"""Of the document that `Report.document` gives."""

SERVED, IN_PROCESS, SERIAL = "served", "in_process", "serial"
"""The platform; the same editor in the benchmark's process; the platform without its step scheduler."""

GOALS: Mapping[str, Goal] = {
    "latency_ratio": Goal("at most", 1.05),
    "latency_overhead_ms": Goal("at most", 25.0),
    "throughput_over_in_process": Goal("at least", 0.9),
    "throughput_over_litserve": Goal("at least", 2.0),
    "throughput_over_fastapi": Goal("at least", 2.0),
    "fairness_index": Goal("at least", 0.95),
}
"""Goal of each figure. A figure without a goal is reported without a verdict."""


@dataclass(frozen=True)
class Report:
    """One run."""

    environment: Mapping[str, Any]
    """What was measured, with what."""
    latencies: Mapping[str, Sequence[float]]
    """Seconds of each edit at concurrency 1, by side, as `latencies` returns them."""
    stages: Mapping[str, Mapping[str, float | None]]
    """Milliseconds of each stage of an edit, by side, as `stages` returns them."""
    throughput: Throughput
    """Edits per second of every side, as `throughputs` returns them."""
    behind_long: Mapping[str, Sequence[Sequence[float]]]
    """Seconds of short edits while long ones run, by side and round, as `behind_long` returns them."""
    tenants: Mapping[int, TenantsLoad]
    """What tenants at once experienced, by their number, as `tenant_loads` returns them."""
    replays: Mapping[str, Replayed]
    """The results of the replayed trace, by side, as `replayed` returns them."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Baselines that were left out, and why."""

    @property
    def figures(self) -> dict[str, Figure | None]:
        """The figures by name; None for one over a baseline that was left out."""
        served, alone = self.latencies[SERVED], self.latencies[IN_PROCESS]
        over = {
            f"throughput_over_{name}": ratios(self.throughput.seconds[name], self.throughput.seconds[SERVED])
            for name in self.throughput.seconds
            if name != SERVED
        }
        return {
            "latency_ratio": ratios(served, alone),
            "latency_overhead_ms": differences([1000 * s for s in served], [1000 * s for s in alone]),
            **{name: over.get(name) for name in GOALS if name.startswith("throughput_over_")},
            "p95_short_behind_long_ratio": ratios(
                p95s(self.behind_long[SERVED]).values, p95s(self.behind_long[SERIAL]).values
            ),
            "slo_attainment": Figure((self.replays[SERVED].attainment,)),
            # The lowest of all numbers of tenants; the median would hide an unfair one.
            "fairness_index": Figure((min(one.fairness for one in self.tenants.values()),)),
        }

    def document(self) -> dict[str, Any]:
        """As JSON: the figures at the top level, then goals, details and environment; null for what was not measured."""
        figures = self.figures
        return {
            "version": VERSION,
            **{name: None if one is None else one.value for name, one in figures.items()},
            "goals": {
                name: goal.verdict(one.value if (one := figures[name]) else None) for name, goal in GOALS.items()
            },
            "missing": dict(self.missing),
            "stages": self.stages,
            "details": {
                "figures": {name: None if one is None else _figure(one) for name, one in figures.items()},
                "latency_seconds": {name: _distribution(taken) for name, taken in self.latencies.items()},
                "throughput": self._throughput(),
                "tenants": {str(count): asdict(one) for count, one in self.tenants.items()},
                "short_behind_long_seconds": {
                    name: _distribution([one for taken in rounds for one in taken])
                    | {"p95_of_rounds": p95s(rounds).values}
                    for name, rounds in self.behind_long.items()
                },
                "trace": {name: asdict(one) for name, one in self.replays.items()},
            },
            "environment": dict(self.environment),
        }

    def _throughput(self) -> dict[str, Any]:
        edits = self.environment["plan"]["edits"]
        return {
            "seconds": dict(self.throughput.seconds),
            "edits_per_second": {
                name: Figure(tuple(edits / seconds for seconds in taken)).value
                for name, taken in self.throughput.seconds.items()
            },
            "largest_difference": self.throughput.largest_difference,
        }


def _figure(figure: Figure) -> dict[str, Any]:
    return {"value": figure.value, "spread": figure.spread._asdict(), "rounds": figure.values}


def _distribution(seconds: Sequence[float]) -> dict[str, Any]:
    return {
        "n": len(seconds),
        **{f"p{percent}": percentile(seconds, percent) for percent in (50, 95, 99)},
        "seconds": list(seconds),
    }
