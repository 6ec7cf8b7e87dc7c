"""What a timing holds (`timing.json` of a run), and the ratio that it shows."""

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
    """One sample, edited by both sets in the order A B B A, once or several times."""

    benchmark: str
    """The name of the benchmark."""
    sample_id: str
    """The id of the sample."""
    seconds_a: tuple[Seconds, ...] = ()
    """Seconds of A's edits; the edit of B at the same place has the same noise."""
    seconds_b: tuple[Seconds, ...] = ()
    """The seconds of each edit by set B."""
    load: float | None = None
    """The machine's load average over one minute when the sample was begun; None where the system does not say."""
    error: str | None = None
    """Why there are no seconds, as a sentence."""


class TimedPair(Record):
    """Two sets on the same samples."""

    a: str
    """The name of the set in use."""
    b: str
    """The set that may replace it."""
    samples: tuple[TimedSample, ...] = ()
    """The samples that both sets edited, with their seconds."""
    machine: Mapping[str, str] = Field(default_factory=dict)
    """Kind of machine: processor, cores that the process may use, device of each set; nothing that names it."""
    missing: str | None = None
    """Why the pair was not timed, as a sentence."""


class TimingRecord(Record):
    """The file `timing.json`: made with every run, never taken from an earlier one."""

    schema_version: Literal[1] = 1
    """Version of this file's format."""
    rounds: int
    """How often a sample was edited in the order A B B A."""
    pairs: tuple[TimedPair, ...]
    """The pairs of sets that were timed."""

    def pair(self, a: str, b: str) -> TimedPair | None:
        """The pair of these two, in this order."""
        return next((one for one in self.pairs if (one.a, one.b) == (a, b)), None)


@dataclass(frozen=True, slots=True)
class Slowdown:
    """How many times A's seconds an edit by B takes."""

    ratio: float
    """Geometric mean over samples of B's seconds over A's."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """The upper end of the interval."""
    samples: int
    """Samples that it is made of."""
    seconds_a: float
    """Geometric mean of A's seconds."""
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
