"""The content of a run's `timing.json`, and the ratio that it shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from scipy.stats import t as student

from careedit.record import Record

TIMING_FILE = "timing.json"
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TimedSample(Record):
    """One sample that both sets edited in the order A B B A, once or several times."""

    benchmark: str
    """The name of the benchmark."""
    sample_id: str
    """The id of the sample."""
    seconds_a: tuple[Seconds, ...] = ()
    """The seconds of each edit by set A. The edit of B at the same position has the same noise."""
    seconds_b: tuple[Seconds, ...] = ()
    """The seconds of each edit by set B."""
    load: float | None = None
    """The load average over one minute at the start of the sample; None if the system does not report it."""
    error: str | None = None
    """Why the sample has no seconds, as a sentence; None if it has."""


class TimedPair(Record):
    """Two sets timed on the same samples."""

    a: str
    """The name of the set in use."""
    b: str
    """The name of the set that may replace it."""
    samples: tuple[TimedSample, ...] = ()
    """The samples that both sets edited, with their seconds."""
    machine: Mapping[str, str] = Field(default_factory=dict)
    """The processor, the cores that the process may use, and the device of each set."""
    missing: str | None = None
    """Why the pair was not timed, as a sentence; None if it was."""


class TimingRecord(Record):
    """The file `timing.json`. It is made in every run and never taken from an earlier one."""

    schema_version: Literal[1] = 1
    """The version of this file's format."""
    rounds: int
    """How often a sample was edited in the order A B B A."""
    pairs: tuple[TimedPair, ...]
    """The pairs of sets that were timed."""

    def pair(self, a: str, b: str) -> TimedPair | None:
        """The pair of these two sets, in this order."""
        return next((one for one in self.pairs if (one.a, one.b) == (a, b)), None)


@dataclass(frozen=True, slots=True)
class Slowdown:
    """The ratio of the seconds of an edit by B to those by A."""

    ratio: float
    """The geometric mean over samples of B's seconds over A's."""
    low: float
    """The lower end of its 95 % interval."""
    high: float
    """The upper end of the interval."""
    samples: int
    """The number of samples of the ratio."""
    seconds_a: float
    """The geometric mean of A's seconds."""
    seconds_b: float
    """The geometric mean of the seconds of set B."""


def slowdown(samples: Iterable[TimedSample]) -> Slowdown | None:
    """The paired ratio: Student's t on one log ratio per sample. None with fewer than two samples that have seconds.

    The order A B B A takes a steady drift of the machine's speed out of every sample's ratio.
    """
    logs = [
        (_mean(map(math.log, one.seconds_a)), _mean(map(math.log, one.seconds_b)))
        for one in samples
        if one.error is None and one.seconds_a and one.seconds_b
    ]
    if len(logs) < 2:
        return None
    before, after = (_mean(values) for values in zip(*logs, strict=True))
    ratios = [b - a for a, b in logs]
    middle = _mean(ratios)
    spread = math.sqrt(sum((one - middle) ** 2 for one in ratios) / (len(ratios) - 1) / len(ratios))
    half = float(student.ppf(0.975, len(ratios) - 1)) * spread
    ratio, low, high = (math.exp(middle + sign * half) for sign in (0, -1, 1))
    return Slowdown(ratio, low, high, len(logs), math.exp(before), math.exp(after))


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
