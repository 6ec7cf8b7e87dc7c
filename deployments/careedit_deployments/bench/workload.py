"""What is sent: how much of it, and which edits. Every side of a comparison gets the very same requests."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import NonNegativeInt, PositiveInt

from careedit.record import Record
from careedit.records import MAX_STEPS, EditRequest
from careedit.samples import SampleEdit, draw_samples
from careedit_deployments.bench.trace import TraceRow

EXPERTS = 4
"""Experts that are mixed."""


class BenchPlan(Record):
    """How much is measured."""

    rounds: PositiveInt = 5
    """Times that every side has its turn; medians over them are told."""
    pairs: PositiveInt = 20
    """Edits whose latency is taken, served and in process in turn."""
    edits: PositiveInt = 48
    """Edits of a round of throughput."""
    clients: PositiveInt = 16
    """Clients that send them."""
    shorts: PositiveInt = 10
    """Short edits of a round behind long ones."""
    longs: PositiveInt = 2
    """Clients that keep sending long edits meanwhile."""
    longer: PositiveInt = 6
    """Steps of a long edit over those of a short one."""
    steps: PositiveInt
    """Steps of an edit, and of a short one."""
    trace_rows: NonNegativeInt | None = None
    """Requests of the trace that are replayed; None: all."""

    @property
    def long_steps(self) -> int:
        """Steps of a long edit."""
        return min(MAX_STEPS, self.longer * self.steps)


QUICK = {"rounds": 1, "pairs": 2, "edits": 4, "clients": 4, "shorts": 2, "longs": 1, "longer": 3, "trace_rows": 4}
"""A plan that only shows that everything works; its figures say little."""


class Workload:
    """Requests from scenes of the tiny world's test split, drawn at a panel's size; request i is always the same."""

    def __init__(self, plan: BenchPlan, experts: Sequence[str], panel: int) -> None:
        """`experts` are the set's; the first `EXPERTS` of them are mixed. `panel` is a side in pixels."""
        self.plan = plan
        self.experts = tuple(experts[:EXPERTS])
        self._panel = panel

    def routed(self, first: int, count: int) -> list[EditRequest]:
        """Edits of one kind, for which the router has to choose."""
        samples = draw_samples(count, side=self._panel, first=first, kinds=["remove"])
        return [self._of(sample, seed=first + i) for i, sample in enumerate(samples)]

    def mixed(self, first: int, count: int) -> list[EditRequest]:
        """Edits of several kinds, the experts named in turn.

        No edit has a mask or a reference: all canvases have one shape, so only the experts differ.
        """
        samples = draw_samples(count, side=self._panel, first=first, plain=True)
        return [
            self._of(sample, seed=first + i, expert=self.experts[i % len(self.experts)])
            for i, sample in enumerate(samples)
        ]

    def alike(self, first: int, count: int, steps: int) -> list[EditRequest]:
        """Edits by the first expert alone."""
        return [
            request.model_copy(update={"expert": self.experts[0], "steps": steps})
            for request in self.mixed(first, count)
        ]

    def traced(self, rows: Sequence[TraceRow]) -> list[EditRequest]:
        """What the rows of a trace ask for."""
        made = []
        for i, (row, request) in enumerate(zip(rows, self.mixed(0, len(rows)), strict=True)):
            expert = self.experts[i % len(self.experts)] if row.expert is None else row.expert
            changes = {"image": request.image.resize(row.pixels), "steps": row.steps, "n": row.n, "expert": expert}
            made.append(request.model_copy(update=changes))
        return made

    def _of(self, sample: SampleEdit, **fields: object) -> EditRequest:
        return sample.request.model_copy(update={"steps": self.plan.steps, **fields})
