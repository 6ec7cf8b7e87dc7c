"""All measurements of the evaluation as one document, with its goals."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from careedit.bench.report import Goal
from careedit.bench.timing import Comparison
from careedit_eval.bench.editing import Throughput, edit_throughput
from careedit_eval.bench.growth import Growth, grow
from careedit_eval.bench.measuring import metric_speedup
from careedit_eval.bench.overlap import EDIT_S, Overlap, simulate
from careedit_eval.benchmarks import load_benchmark
from careedit_eval.pipeline.timing_worker import cores
from careedit_eval.records import Sample

VERSION = 1
"""The version of the document that `bench_eval` returns."""
WORKERS = (1, 2)
"""The numbers of workers that edit."""
SETS = (1, 2, 4)
"""The numbers of sets whose edits of the same samples are measured; the first one is `metric_speedup`."""
JUDGES: Mapping[str, float] = {"fast": 0.3, "equal": 1.0, "slow": 3.0}
"""The seconds of a simulated judge per edit, over those of the simulated editor."""
GOALS: Mapping[str, Goal] = {
    "edit_throughput_per_worker": Goal("at least", 0.9),
    "metric_speedup": Goal("at least", 5.0),
    "memory_growth_ratio": Goal("at most", 1.5),
    "editor_busy": Goal("at least", 0.9),
}
"""The goals, for every number of workers."""

Said = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    edits: int
    """The number of edits of each way and number of workers."""
    pairs: int
    """The number of samples that the metrics measure."""
    repeats: int
    """The number of repeats of each timed metric."""
    few: int
    """The number of rows of the small run."""
    many: int
    """The number of rows of the large run, which is then resumed."""
    overlapped: int
    """The number of edits in each simulation of editing and measuring at the same time."""


FULL = Size(edits=48, pairs=128, repeats=5, few=500, many=10_000, overlapped=120)
QUICK = Size(edits=4, pairs=8, repeats=1, few=24, many=48, overlapped=8)


def bench_eval(
    size: Size = FULL, *, expert_set: str = "tiny", rows: Path | None = None, done: Said = lambda _: None
) -> dict[str, Any]:
    """Measure everything on drawn rows. The document has the figures and all raw data.

    `edit_throughput_per_worker` ({"1", "2"}: share of a plain loop's rate that each worker has), `metric_speedup` (one
    set's edits; by sets under `details`), `resume_seconds` (a finished run of `size.many` rows again),
    `memory_growth_ratio` (peak memory with `size.many` rows over that with `size.few`), `editor_busy` (the share of its time
    in which a simulated editor edits, while a judge measures what it made; the lowest of several judges). `rows` is a folder that keeps
    what is drawn; with None it is drawn again. `done` is called with what was finished. Raises `CareEditError`.
    """
    with tempfile.TemporaryDirectory(prefix="careedit-bench-") as name:
        folder = Path(name)
        file, samples = _drawn(rows or folder / "rows", max(size.many, size.edits + 16, size.pairs))
        done("drawing")
        growth = _growth(file, folder, size)
        done("growing")
        speedups = {}
        for sets in SETS:
            speedups[sets] = metric_speedup(samples[: size.pairs], sets=sets, repeats=size.repeats)
        done("measuring")
        rates = {}
        for workers in WORKERS:
            rates[workers] = edit_throughput(file, folder, workers=workers, edits=size.edits, expert_set=expert_set)
            done("editing")
        overlaps = {}
        for name, share in JUDGES.items():
            overlaps[name] = simulate(file, folder / name, edits=size.overlapped, judge_s=share * EDIT_S)
            done(f"overlap, {name} judge")
    return _document(size, expert_set, growth, speedups, rates, overlaps)


def _drawn(folder: Path, rows: int) -> tuple[Path, tuple[Sample, ...]]:
    """A file with HumanEdit's columns, drawn if it does not exist yet; it is read like any other such file."""
    drawn: Any = load_benchmark("tiny_humanedit", path=str(folder), rows=rows)
    file: Path = drawn.file
    if not file.is_file():
        drawn.write()
    return file, tuple(load_benchmark("humanedit", path=str(file)).rows())


def _growth(file: Path, folder: Path, size: Size) -> dict[str, Growth]:
    return {
        "few": grow(file, folder / "few", size.few, "first"),
        "many": grow(file, folder / "many", size.many, "first"),
        "resumed": grow(file, folder / "many", size.many, "second"),
    }


def _document(
    size: Size,
    expert_set: str,
    growth: Mapping[str, Growth],
    speedups: Mapping[int, Comparison],
    rates: Mapping[int, Throughput],
    overlaps: Mapping[str, Overlap],
) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "edit_throughput_per_worker": {str(workers): rate.per_worker for workers, rate in rates.items()},
        "metric_speedup": speedups[SETS[0]].ratio,
        "resume_seconds": growth["resumed"].seconds,
        "memory_growth_ratio": growth["many"].peak_bytes / growth["few"].peak_bytes,
        "editor_busy": min(one.busy for one in overlaps.values()),
    }
    worst = {**figures, "edit_throughput_per_worker": min(figures["edit_throughput_per_worker"].values())}
    return {
        "version": VERSION,
        **figures,
        "goals": {name: {"goal": str(goal), "met": goal.met_by(worst[name])} for name, goal in GOALS.items()},
        "details": {
            "editing": {str(workers): asdict(rate) for workers, rate in rates.items()},
            "measuring": {str(sets): _speedup(one, sets * size.pairs) for sets, one in speedups.items()},
            "growth": {name: asdict(one) for name, one in growth.items()},
            "overlap": {
                name: {**asdict(one), "busy": one.busy, "over_ideal": one.over_ideal} for name, one in overlaps.items()
            },
        },
        "environment": {
            **asdict(size),
            "expert_set": expert_set,
            "cores": cores(),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "ray", "open_clip_torch")},
        },
    }


def _speedup(one: Comparison, edits: int) -> dict[str, Any]:
    """Edits per second of both ways, and their ratios. The ratio of processor time varies less on a busy machine."""
    script, metrics = one.seconds
    return {
        "ratio": one.ratio,
        "cpu_ratio": one.cpu_ratio,
        "spread": one.spread,
        "per_second": edits / metrics,
        "script_per_second": edits / script,
    }
