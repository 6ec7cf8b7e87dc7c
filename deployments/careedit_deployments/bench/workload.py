"""The requests of a benchmark. All measured systems get the same requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from careedit.record import Record
from careedit.records import MAX_STEPS, EditRequest
from careedit.samples import SampleEdit, draw_samples
from careedit_deployments.bench.trace import TraceRow

EXPERTS = 4
"""Maximum number of experts in mixed requests."""


class BenchPlan(Record):
    """The size of a benchmark."""

    rounds: PositiveInt = 3
    """Number of rounds per system; medians over the rounds are reported. Default: 3."""
    pairs: PositiveInt = 20
    """Number of edits whose latency is measured, served and in process in turn. Default: 20."""
    traced: PositiveInt = 12
    """Number of edits whose stages are measured, served and in process in turn. Default: 12."""
    edits: PositiveInt = 40
    """Number of edits per round of throughput. Default: 40."""
    clients: PositiveInt = 16
    """Number of clients that send these edits. Default: 16."""
    shorts: PositiveInt = 10
    """Number of short edits per round while long edits run. Default: 10."""
    longs: PositiveInt = 2
    """Number of clients that send long edits at the same time. Default: 2."""
    longer: PositiveInt = 6
    """Steps of a long edit, divided by the steps of a short one. Default: 6."""
    tenant_edits: Mapping[PositiveInt, PositiveInt] = {1: 40, 10: 8, 50: 6}
    """Edits of each tenant, by the number of tenants at once. Default: 40 of one, 8 each of 10, 6 each of 50."""
    steps: PositiveInt
    """Denoising steps of an edit, and of a short edit."""
    trace_rows: NonNegativeInt | None = None
    """Number of trace rows that are replayed. None: all."""

    @property
    def long_steps(self) -> int:
        """Denoising steps of a long edit."""
        return min(MAX_STEPS, self.longer * self.steps)


QUICK: Mapping[str, Any] = {
    "rounds": 1,
    "pairs": 2,
    "traced": 1,
    "edits": 4,
    "clients": 4,
    "shorts": 2,
    "longs": 1,
    "longer": 3,
    "tenant_edits": {1: 2, 2: 1},
    "trace_rows": 4,
}
"""A plan that only checks that everything works; its figures are not meaningful."""


class Workload:
    """Requests from sample edits (`careedit.samples`) at the size of a panel. Request i is always the same."""

    def __init__(self, plan: BenchPlan, experts: Sequence[str], panel: int) -> None:
        """`experts`: those of the set; the first `EXPERTS` of them are used. `panel`: side of a panel in pixels."""
        self.plan = plan
        self.experts = tuple(experts[:EXPERTS])
        self._panel = panel

    def routed(self, first: int, count: int) -> list[EditRequest]:
        """Edits of one kind, without a named expert, so that the router decides."""
        samples = draw_samples(count, side=self._panel, first=first, kinds=["remove"])
        return [self._of(sample, seed=first + i) for i, sample in enumerate(samples)]

    def mixed(self, first: int, count: int) -> list[EditRequest]:
        """Edits of several kinds, which name the experts in turn.

        No edit has a mask or a reference, so all canvases have the same shape and only the experts differ.
        """
        samples = draw_samples(count, side=self._panel, first=first, plain=True)
        return [
            self._of(sample, seed=first + i, expert=self.experts[i % len(self.experts)])
            for i, sample in enumerate(samples)
        ]

    def alike(self, first: int, count: int, steps: int) -> list[EditRequest]:
        """Edits by the first expert only."""
        return [
            request.model_copy(update={"expert": self.experts[0], "steps": steps})
            for request in self.mixed(first, count)
        ]

    def traced(self, rows: Sequence[TraceRow]) -> list[EditRequest]:
        """The requests for the rows of a trace."""
        made = []
        for i, (row, request) in enumerate(zip(rows, self.mixed(0, len(rows)), strict=True)):
            expert = self.experts[i % len(self.experts)] if row.expert is None else row.expert
            changes = {"image": request.image.resize(row.pixels), "steps": row.steps, "n": row.n, "expert": expert}
            made.append(request.model_copy(update=changes))
        return made

    def _of(self, sample: SampleEdit, **fields: object) -> EditRequest:
        return sample.request.model_copy(update={"steps": self.plan.steps, **fields})
