"""The plan of a suite: benchmarks read, sets resolved, reference rows added, and every edit with its key."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from careedit.errors import ExpertError, InputError
from careedit_eval.editors import Resolved, resolve_arm
from careedit_eval.editors.local import UNIFIED, load_set
from careedit_eval.pipeline.tasks import EditTask, chains_of, edit_keys
from careedit_eval.records import Metric, MetricSpec, Output, Sample, fingerprint_of
from careedit_eval.suite import Arm, Suite, check_margins, make_benchmark, make_metric

logger = logging.getLogger(__name__)

SINGLE = "single/"
"""The prefix of an arm with one expert: the set's base with that expert alone. Best-single and oracle are made of these arms."""


@dataclass(frozen=True)
class Rows:
    """The rows of a benchmark."""

    name: str
    """The name of the benchmark."""
    revision: str
    """The revision of the benchmark's data."""
    fingerprint: str
    """The sha256 over ids and contents of `samples`."""
    samples: tuple[Sample, ...]
    """All rows, in the order of the benchmark."""

    @property
    def scored(self) -> tuple[Sample, ...]:
        """The samples that are measured; others only lead to a later turn."""
        return tuple(sample for sample in self.samples if sample.scored)


@dataclass(frozen=True)
class Plan:
    """Everything that a run is made of."""

    suite: Suite
    """The suite that is evaluated."""
    benchmarks: tuple[Rows, ...]
    """The benchmarks whose samples are edited."""
    arms: tuple[Resolved, ...]
    """The arms that edit: the suite's sets, then those that its rows need."""
    metrics: tuple[Metric, ...]
    """The metrics that measure one edit."""
    pairwise: tuple[Metric, ...]
    """The metrics that compare two edits."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Rows that cannot be measured, with the reasons."""

    @property
    def outputs(self) -> dict[str, Output]:
        """Every output by its name."""
        return {one.name: one for metric in (*self.metrics, *self.pairwise) for one in metric.spec.outputs}

    @property
    def specs(self) -> tuple[MetricSpec, ...]:
        """The identities of all metrics."""
        return tuple(metric.spec for metric in (*self.metrics, *self.pairwise))

    @property
    def sets(self) -> tuple[str, ...]:
        """The names of the suite's own sets."""
        return tuple(arm.name for arm in self.suite.sets)

    @property
    def singles(self) -> tuple[str, ...]:
        """The names of the arms with a single expert."""
        return tuple(arm.name for arm in self.arms if arm.name.startswith(SINGLE))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every two sets, in the suite's order; a comparison of the suite may reverse the order of a pair."""
        named = [(one.a, one.b) for one in self.suite.compare]
        between = [(first, second) for i, first in enumerate(self.sets) for second in self.sets[i + 1 :]]
        return [pair if (pair[1], pair[0]) not in named else (pair[1], pair[0]) for pair in between]

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """The seeds of an arm. Single experts also get the seed on which they are chosen."""
        seeds = self.suite.seeds
        return (*seeds, self.suite.pick_seed) if arm in self.singles and self.suite.pick_seed not in seeds else seeds

    @cached_property
    def tasks(self) -> tuple[EditTask, ...]:
        """All edits of the run, arm by arm."""
        return tuple(
            EditTask(arm.arm, chain, edit_keys(arm.identity, chain, seed), seed, rows.name)
            for arm in self.arms
            for rows in self.benchmarks
            for seed in self.seeds_of(arm.name)
            for chain in chains_of(rows.samples)
        )

    @cached_property
    def keys(self) -> dict[tuple[str, str, int], dict[str, str]]:
        """The edit keys by sample, for every (benchmark, arm, seed)."""
        found: dict[tuple[str, str, int], dict[str, str]] = {}
        for task in self.tasks:
            column = found.setdefault((task.benchmark, task.arm.name, task.seed), {})
            column.update((sample.id, key) for sample, key in zip(task.samples, task.keys, strict=True))
        return found


def make_plan(suite: Suite, *, limit: int | None = None, gpus: bool = False, registry: str | None = None) -> Plan:
    """Read, resolve and check everything before the first edit. `limit` takes the first samples of each benchmark,
    `registry` is the MLflow that `models:/` addresses are looked up in.

    Raises `InputError` or `ExpertError`.
    """
    metrics, pairwise = tuple(map(make_metric, suite.metrics)), tuple(map(make_metric, suite.pairwise))
    _check_outputs(suite, metrics, pairwise)
    arms, missing = _arms(suite, gpus, registry)
    benchmarks = tuple(rows_of(suite, limit))
    if suite.gate is not None and limit is None:
        check_margins(suite.gate, {sample.kind for rows in benchmarks for sample in rows.scored})
    return Plan(suite, benchmarks, arms, metrics, pairwise, missing)


def rows_of(suite: Suite, limit: int | None) -> Iterator[Rows]:
    """The rows of every benchmark of a suite; `limit` takes the first samples of each. Raises `InputError`."""
    names: set[str] = set()
    for part in suite.benchmarks:
        benchmark = make_benchmark(part)
        samples = tuple(benchmark.rows())
        if limit is not None and limit < len(samples):
            chains = list(chains_of(samples))
            kept = {sample.id for chain in chains[:limit] for sample in chain}
            samples = tuple(sample for sample in samples if sample.id in kept)
        if not samples:
            raise InputError(f"The benchmark {benchmark.name!r} has no rows; correct its options.")
        if benchmark.name in names:
            raise InputError(f"Two benchmarks are called {benchmark.name!r}; leave one out.")
        names.add(benchmark.name)
        whole = len(samples) == len(benchmark)
        fingerprint = benchmark.fingerprint if whole else fingerprint_of(samples)
        yield Rows(benchmark.name, benchmark.revision, fingerprint, samples)


def _arms(suite: Suite, gpus: bool, registry: str | None) -> tuple[tuple[Resolved, ...], dict[str, str]]:
    """The suite's sets and the arms that its rows need; and the rows that cannot be measured, with the reasons."""
    arms = [resolve_arm(arm, gpus=gpus, registry=registry) for arm in suite.sets]
    missing: dict[str, str] = {}
    subject = next((arm.arm for arm in arms if arm.arm.kind == "set"), None)
    for row in suite.rows:
        if any(arm.name == row for arm in arms):
            continue
        if row in ("identity", "truth"):
            arms.append(resolve_arm(Arm(name=row, kind="identity" if row == "identity" else "truth")))
        elif subject is None:
            missing[row] = "No set of the suite is edited here, so its experts cannot be had one by one."
        elif row in ("base", "unified"):
            wanted = subject.model_copy(update={"name": row, "expert": "base" if row == "base" else UNIFIED})
            try:
                arms.append(resolve_arm(wanted, gpus=gpus))
            except (ExpertError, InputError) as error:
                missing[row] = str(error)
        elif not any(arm.name.startswith(SINGLE) for arm in arms):
            for expert in load_set(subject.expert_set, "auto").names:
                single = subject.model_copy(update={"name": SINGLE + expert, "expert": expert})
                arms.append(resolve_arm(single, gpus=gpus))
    for name, why in missing.items():
        logger.warning("The row %s is left out: %s", name, why)
    return tuple(arms), missing


def _check_outputs(suite: Suite, metrics: Sequence[Metric], pairwise: Sequence[Metric]) -> None:
    names = [one.name for metric in (*metrics, *pairwise) for one in metric.spec.outputs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"Two metrics give the number {twice[0]!r}; leave one out.")
    margins = [] if suite.gate is None else [name.partition("/")[0] for name in suite.gate.margins]
    informing = {one.name for metric in metrics for one in metric.spec.outputs if one.information}
    for name in (suite.primary, *margins):
        if name not in names:
            raise InputError(f"The suite names {name!r}, which no metric gives; they give {', '.join(names)}.")
        if name in informing:
            raise InputError(
                f"{name} is information only, because seconds of the store depend on when an edit was made; gate the time "
                "by max_slowdown, and name another primary number."
            )
    for part, metric in zip((*suite.metrics, *suite.pairwise), (*metrics, *pairwise), strict=True):
        if ("rival" in metric.needs) != (part in suite.pairwise):
            raise InputError(
                f"The metric {part.name!r} belongs among the suite's other metrics; move it (see pairwise)."
            )


def suite_folder(path: str | Path) -> Path:
    """The folder to which a suite's own paths are relative."""
    return Path(path).resolve().parent
