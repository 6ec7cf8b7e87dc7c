"""Whether an editor ever waits for a judge, with an editor and a judge that only wait and so need no GPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from careedit_eval.bench.editing import cluster
from careedit_eval.editors import Edited, EditWork
from careedit_eval.metrics.base import ScoreItem
from careedit_eval.pipeline import Store, evaluate
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.records import Measurement, MetricSpec, Output
from careedit_eval.suite import Arm, Part, Suite, Workers

EDIT_S = 0.1
"""The seconds of a simulated edit."""
BATCH = 4
"""The number of edits per task, and of edits that are measured together."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """One simulation, in seconds on one clock."""

    judge_s: float
    """The seconds of the judge per edit."""
    editing_s: float
    """The seconds in which the editor edited, summed over edits."""
    editing_span_s: float
    """The seconds from the start of the first edit to the end of the last one."""
    judging_s: float
    """The seconds in which the judge measured, summed over batches."""
    span_s: float
    """The seconds from the start of the first edit to the end of the last measurement."""

    @property
    def busy(self) -> float:
        """The share of the editor's time in which it edited; the rest it waited."""
        return self.editing_s / self.editing_span_s

    @property
    def over_ideal(self) -> float:
        """The seconds of the whole run over those of the longer stage alone."""
        return self.span_s / max(self.editing_s, self.judging_s)


def simulate(rows: Path, folder: Path, *, edits: int, judge_s: float) -> Overlap:
    """Edit and measure the first `edits` rows of a parquet file by one editor and one judge, which both only wait.

    Raises `CareEditError`.
    """
    folder.mkdir()
    logs = {name: folder / name for name in ("editing", "judging")}
    suite = Suite(
        name="overlap",
        benchmarks=(Part(name="humanedit", options={"path": str(rows), "limit": edits}),),
        sets=(
            Arm(
                name="waits",
                kind="custom",
                editor=Part(name=f"{__name__}:editor", options={"seconds": EDIT_S, "log": str(logs["editing"])}),
            ),
        ),
        rows=(),
        metrics=(Part(name=f"{__name__}:judge", options={"seconds": judge_s, "log": str(logs["judging"])}),),
        primary="seen",
        workers=Workers(edit=1, score=1, edit_batch=BATCH, score_batch=BATCH, overlap=True),
    )
    with cluster(3) as runner:
        evaluate(make_plan(suite), Store(folder / "store"), runner)
    spans = {name: _spans(log) for name, log in logs.items()}
    (first, _), (_, last) = spans["editing"][0], spans["editing"][-1]
    return Overlap(
        judge_s=judge_s,
        editing_s=sum(end - start for start, end in spans["editing"]),
        editing_span_s=last - first,
        judging_s=sum(end - start for start, end in spans["judging"]),
        span_s=spans["judging"][-1][1] - first,
    )


class WaitingEditor:
    """Waits for the seconds of an edit, and returns the source."""

    concurrency = 1

    def __init__(self, seconds: float, log: Path) -> None:
        self._seconds, self._log = seconds, log

    def edit(self, work: EditWork) -> Edited:
        """See `careedit_eval.editors.SampleEditor`."""
        _wait(self._seconds, self._log)
        return Edited(work.source)


class WaitingJudge:
    """Waits for the seconds of a batch, and has seen every edit."""

    needs: frozenset[str] = frozenset()
    spec = MetricSpec(name="seen", outputs=(Output(name="seen", better="higher"),), protocol="simulation")

    def __init__(self, seconds: float, log: Path) -> None:
        self._seconds, self._log = seconds, log

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""
        _wait(self._seconds * len(batch), self._log)
        return [Measurement(values={"seen": 1.0}) for _ in batch]


def editor(seconds: float, log: str) -> WaitingEditor:
    """An editor from a suite's options."""
    return WaitingEditor(seconds, Path(log))


def judge(seconds: float, log: str) -> WaitingJudge:
    """A judge from a suite's options."""
    return WaitingJudge(seconds, Path(log))


def _wait(seconds: float, log: Path) -> None:
    """Wait, and write when that began and ended, by the clock that all processes of a machine share."""
    start = time.monotonic()
    time.sleep(seconds)
    with log.open("a", encoding="ascii") as lines:
        lines.write(f"{start} {time.monotonic()}\n")


def _spans(log: Path) -> list[tuple[float, float]]:
    """The starts and ends in a log, in order."""
    with log.open(encoding="ascii") as lines:
        return sorted((float(start), float(end)) for start, end in map(str.split, lines))
