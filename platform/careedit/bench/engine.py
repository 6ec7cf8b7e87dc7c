"""`careedit bench engine`: ratios of times and memory, with one function per definition (see docs/benchmarks.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
from PIL import Image

from careedit.bench.report import Goal, environment
from careedit.bench.stock import run_stock
from careedit.bench.subject import Subject
from careedit.bench.timing import Comparison, check_counts, compare
from careedit.editing import EditJob, Engine
from careedit.editing.base_model import use_threads
from careedit.experts import adapter_share

VERSION = 1
"""Version of the document that `Report.document` returns."""

MEMORY = "memory_share_per_expert"
"""The one figure that is counted, not timed."""

GOALS: Mapping[str, Goal] = {
    "switch_ratio_shared": Goal("at most", 1.05),
    "mixed_batch_speedup": Goal("at least", 2.0),
    MEMORY: Goal("at most", 0.03),
    "loop_over_pipeline": Goal("at most", 1.0),
}
"""Goal of each figure by its name; a figure without a goal has no verdict."""

BATCH = 8
"""Number of edits in the mixed batch."""

FLUX_RANK = 32
"""Rank of the counted adapter of FLUX.1-Fill."""

Pair = tuple[str, Callable[[], object], str, Callable[[], object]]
"""The two sides of a ratio: name and function of the numerator, then of the denominator."""

COMPARISONS = (
    "switch_ratio_merged",
    "switch_ratio_shared",
    "mixed_batch_speedup",
    "shared_step_ratio",
    "loop_over_pipeline",
)
"""The ratios of times, in the order in which they are measured."""


@dataclass(frozen=True)
class Report:
    """The figures of one run and the measurements behind them."""

    environment: Mapping[str, Any]
    """Expert set, settings, device and library versions of the run."""
    comparisons: Mapping[str, Comparison]
    """The timed comparisons by the name of their figure."""
    shares: Mapping[str, float]
    """Weights of one expert divided by those of the base: `flux`, `subject`, `subject_rank_32` (see `memory_shares`)."""

    @property
    def figures(self) -> dict[str, float]:
        """The figures by name."""
        return {name: comparison.ratio for name, comparison in self.comparisons.items()} | {MEMORY: self.shares["flux"]}

    def document(self) -> dict[str, Any]:
        """As JSON: the figures at the top level, then goals, details and environment."""
        details: dict[str, Any] = {name: _detail(comparison) for name, comparison in self.comparisons.items()}
        details[MEMORY] = dict(self.shares)
        return {
            "version": VERSION,
            **self.figures,
            "goals": {name: GOALS[name].verdict(value) for name, value in self.figures.items() if name in GOALS},
            "details": details,
            "environment": dict(self.environment),
        }


def bench_engine(
    subject: Subject,
    *,
    repeats: int = 5,
    steps: int | None = None,
    threads: int | None = None,
    done: Callable[[], None] = lambda: None,
) -> Report:
    """Measure every ratio. `steps` per edit default to the subject's, `threads` to torch's choice.

    `done` is called after each timed run; there are `2 * repeats * len(COMPARISONS)`. Raises `InputError`.
    """
    steps = subject.steps if steps is None else steps
    check_counts(repeats=repeats, steps=steps, threads=threads)
    with use_threads(threads), torch.no_grad():
        pairs = pairs_of(subject, steps)
        comparisons: dict[str, Comparison] = {
            name: compare(*pairs[name], repeats=repeats, device=subject.base.device, done=done) for name in COMPARISONS
        }
        facts = _describe(subject, repeats=repeats, steps=steps)
    return Report(environment=facts, comparisons=comparisons, shares=memory_shares(subject))


def pairs_of(subject: Subject, steps: int) -> Mapping[str, Pair]:
    """The two sides of each of `COMPARISONS`. Every run encodes its images and texts again."""
    first, second = subject.library.names[:2]
    four = [subject.job(index, first, steps) for index in range(4)]
    alternating = [subject.job(index, name, steps) for index, name in enumerate((first, second, first, second))]
    mixed = [subject.job(index, name, steps) for index, name in enumerate(islice(cycle(subject.library.names), BATCH))]
    one = subject.job(0, first, steps)
    return {
        "switch_ratio_merged": _switching(subject.merged, alternating, four),
        "switch_ratio_shared": _switching(subject.shared, alternating, four),
        "mixed_batch_speedup": (
            f"{BATCH} single edits in a row, experts in turn, shared",
            partial(one_by_one, subject.shared, mixed),
            f"the same {BATCH} edits as one batch, shared",
            partial(together, subject.shared, mixed),
        ),
        "shared_step_ratio": (
            f"{steps} steps of one edit, shared",
            _steps(subject.shared, one),
            f"{steps} steps of one edit, merged",
            _steps(subject.merged, one),
        ),
        "loop_over_pipeline": (
            "one edit, own loop, expert merged",
            partial(one_by_one, subject.merged, [one]),
            f"the same edit, {subject.base.facts.pipeline} with the same weights",
            partial(stock, subject, one),
        ),
    }


def one_by_one(engine: Engine, jobs: Sequence[EditJob]) -> list[Image.Image]:
    """Run the edits one after the other, from an empty encoding cache."""
    engine.cache.clear()
    return [picture for job in jobs for picture in _edit(engine, [job])]


def together(engine: Engine, jobs: Sequence[EditJob]) -> list[Image.Image]:
    """Run all edits as one batch, from an empty encoding cache."""
    engine.cache.clear()
    return _edit(engine, jobs)


def stock(subject: Subject, job: EditJob) -> Image.Image:
    """Run the edit by diffusers' own pipeline; see `run_stock`."""
    subject.merged.applier.merge(next(iter(job.weights)))  # type: ignore[attr-defined]  # `merged` has a MergedApplier
    return run_stock(subject.pipeline, subject.base, job)


def memory_shares(subject: Subject) -> dict[str, float]:
    """Weights of one more expert divided by those of the base transformer.

    `flux`: FLUX.1-Fill's shapes at rank 32 on every projection, counted on the meta device. `subject`: the mean of the
    subject's own experts. `subject_rank_32`: the subject's base with an adapter as in `flux`, for comparison.
    """
    library = subject.library
    own = sum(library.parameters(name) for name in library.names) / len(library.names)
    return {
        "flux": adapter_share(rank=FLUX_RANK).share,
        "subject": own / subject.shapes.count,
        "subject_rank_32": adapter_share(subject.shapes, rank=FLUX_RANK).share,
    }


def _edit(engine: Engine, jobs: Sequence[EditJob]) -> list[Image.Image]:
    """The work of `Editor` for one batch of panel-sized images."""
    with engine.applier.lease({name for job in jobs for name in job.weights}):
        states = [engine.prepare(job) for job in jobs]
        while any(not state.done for state in states):
            engine.step(states)
        return engine.finish_many(states)


def _switching(engine: Engine, alternating: Sequence[EditJob], four: Sequence[EditJob]) -> Pair:
    kind = engine.applier.kind
    return (
        f"4 edits by experts A, B, A, B, {kind}",
        partial(one_by_one, engine, alternating),
        f"4 edits by expert A, {kind}",
        partial(one_by_one, engine, four),
    )


def _steps(engine: Engine, job: EditJob) -> Callable[[], object]:
    """Only the steps: each run resets a prepared edit to its start."""
    start = engine.prepare(job)
    noise = start.latents

    def run() -> None:
        start.latents, start.index = noise, 0
        while not start.done:
            engine.step([start])

    return run


def _describe(subject: Subject, *, repeats: int, steps: int) -> dict[str, Any]:
    """The settings of the run, without the machine's name. Call it while the measured number of threads is set."""
    return {
        "expert_set": subject.name,
        "experts": len(subject.library.names),
        "base_parameters": subject.shapes.count,
        "panel": subject.panel,
        "steps": steps,
        "batch": BATCH,
        "repeats": repeats,
        **environment(subject.base),
    }


def _detail(comparison: Comparison) -> dict[str, Any]:
    return {
        "what": comparison.what,
        "over": comparison.over,
        "seconds": [lap.seconds for lap in comparison.laps],
        "over_seconds": [lap.seconds for lap in comparison.over_laps],
        "ratios": list(comparison.ratios),
        "spread": comparison.spread._asdict(),
        "cpu_ratio": comparison.cpu_ratio,
        "cpu_seconds": [lap.cpu_seconds for lap in comparison.laps],
        "over_cpu_seconds": [lap.cpu_seconds for lap in comparison.over_laps],
    }
