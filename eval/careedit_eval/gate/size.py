"""How many source images the margins of a gate need, from the spread of an earlier run or an assumed one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean

from careedit.errors import InputError
from careedit_eval.compare.differences import ALL, difference_of, of_kind
from careedit_eval.records import Output
from careedit_eval.runs import Run
from careedit_eval.stats import Spread, images_needed
from careedit_eval.suite import Gate, Suite, check_margins, make_benchmark

POWERS = (0.8, 0.95)
"""The probabilities, for which a size is planned, that a set as good as the one in use passes."""


@dataclass(frozen=True, slots=True)
class Need:
    """The need of one margin on one benchmark."""

    benchmark: str
    """The name of the benchmark."""
    output: str
    """The name of the gated number."""
    kind: str
    """The kind of edit, or `ALL`."""
    margin: float
    """The largest loss that is still acceptable."""
    has: int
    """The number of source images of that kind in the suite."""
    images: tuple[int | None, ...]
    """The number of source images that it needs, per power of `POWERS`; None if the margin is 0, so that no number is enough."""
    hours: tuple[float | None, ...]
    """The hours to edit and measure that many images one after the other; None if no run shows how long that takes."""

    @property
    def enough(self) -> bool:
        """Whether the suite has as many as a power of 0.8 needs."""
        return self.images[0] is not None and self.images[0] <= self.has


def plan_size(
    suite: Suite, margins: Mapping[str, float], *, run: Run | None = None, assumed: Spread | None = None
) -> list[Need]:
    """The need of every margin ("clip_i", "clip_i/Add") on every benchmark of the suite.

    Spreads are assumed, or those of the first comparison in the run. Raises `InputError` without both, or if the run lacks the
    number.
    """
    found = []
    fewest = suite.gate.min_images if suite.gate is not None else 2
    benchmarks = [make_benchmark(part) for part in suite.benchmarks]
    rows = [[sample for sample in benchmark.rows() if sample.scored] for benchmark in benchmarks]
    check_margins(Gate(margins=margins), {sample.kind for samples in rows for sample in samples})
    for benchmark, samples in zip(benchmarks, rows, strict=True):
        cost = None if run is None else seconds_per_image(run, benchmark.name)
        for name, margin in margins.items():
            output, _, kind = name.partition("/")
            kind = kind or ALL
            if kind != ALL and all(sample.kind != kind for sample in samples):
                continue  # of another benchmark
            if assumed is None and run is not None:
                output = full_name(output, run.record.outputs)
            spread = assumed or _spread(suite, run, benchmark.name, output, kind)
            needed = [images_needed(spread, margin, power=power) for power in POWERS]
            images = tuple(None if one is None else max(fewest, one) for one in needed)
            hours = tuple(None if one is None or cost is None else one * cost / 3600 for one in images)
            has = len({sample.group for sample in samples if kind in (ALL, sample.kind)})
            found.append(Need(benchmark.name, output, kind, margin, has, images, hours))
    return found


def full_name(name: str, outputs: Mapping[str, Output]) -> str:
    """The output `name`, or the only one that ends with it: "compliant" is "oracle_compliant". Raises `InputError`."""
    ending = [one for one in outputs if one.endswith(f"_{name}")]
    if name in outputs or len(ending) == 1:
        return name if name in outputs else ending[0]
    raise InputError(f"The last run has no number {name!r}; it has {', '.join(outputs)}.")


def seconds_per_image(run: Run, benchmark: str) -> float | None:
    """Seconds of all edits and scores of one source image, from a run; None if the run has none.

    An edit's seconds are its own; those of a score are the rest of the run's time, divided by the number of scores.
    """
    edits = {line.edit_key: line for line in run.table.edits if line.benchmark == benchmark}
    images = len({line.group for line in edits.values()})
    seconds = [line.seconds for line in edits.values() if line.seconds is not None]
    if not images or not seconds:
        return None
    record = run.record
    measuring = max(0.0, record.seconds - record.edited * mean(seconds))
    score = measuring / record.measured if record.measured else 0.0
    scores = sum(line.benchmark == benchmark for line in run.table.scores)
    return (sum(seconds) + scores * score) / images


def _spread(suite: Suite, run: Run | None, benchmark: str, output: str, kind: str) -> Spread:
    if run is None or not suite.compare:
        reason = "This suite has no earlier run" if run is None else "The suite does not compare two sets"
        raise InputError(
            f"{reason}, so it is not known how the numbers vary; assume it with --flips (pass/fail) or --sd."
        )
    a, b = suite.compare[0].a, suite.compare[0].b
    columns = [of_kind(run.table.column(benchmark, name, output), kind) for name in (a, b)]
    spread = difference_of(benchmark, run.record.outputs[output], kind, *columns).spread
    if spread is None:
        where = output if kind == ALL else f"{output}/{kind}"
        raise InputError(
            f"The run {run.record.id} has too few numbers of {where} for {a} and {b} on {benchmark}; assume their spread by "
            "--flips or --sd."
        )
    return spread
