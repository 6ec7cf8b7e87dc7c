"""One run of the quality benchmark: measure what is missing, look the rows up, and say what the goals came to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from careedit.bench.report import environment
from careedit.bench.timing import use_threads
from careedit.records import RoutingDecision
from careedit.routing import features_of
from careedit.stats import LEVEL, RESAMPLES, bootstrap_mean
from careedit_tiny.bench.quality.codec import codec_outcomes
from careedit_tiny.bench.quality.goals import verdicts
from careedit_tiny.bench.quality.measure import Arm, Bench, Task, arms_of, identity_outcomes
from careedit_tiny.bench.quality.outcomes import Outcome
from careedit_tiny.bench.quality.routed import Decisions, decide_all, router_report
from careedit_tiny.bench.quality.rows import (
    Row,
    best_single,
    kinds_of,
    looked_up,
    oracle_choice,
    random_row,
    row_of,
    share,
)
from careedit_tiny.bench.quality.sections import chain_section, identity_section, infeasible_section, reference_section
from careedit_tiny.bench.quality.subject import UNIFIED, UNIFIED_ARM
from careedit_tiny.models.family import PANEL
from careedit_tiny.report.showcase import request_for
from careedit_tiny.world.samples import Sample

VERSION = 1
"""Of the document."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One scene with what every row made of it, for people."""

    sample: Sample
    """The scene."""
    outcomes: Mapping[str, Outcome]
    """By row, pictures kept."""


@dataclass(frozen=True, eq=False)
class QualityReport:
    """What a run says."""

    document: dict[str, Any]
    """As JSON."""
    gallery: tuple[Shown, ...]
    """One scene of each kind."""


def bench_quality(bench: Bench, *, threads: int | None = None) -> QualityReport:
    """Measure a set; what `bench.cache` holds is not edited again. Raises `InputError`, `ExpertError`."""
    with use_threads(threads), torch.no_grad():
        return _Run(bench).report()


class _Run:
    """The measurements of one run, in the order in which they are made."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.subject, self.plan = bench, bench.subject, bench.plan
        self.missing = dict(self.subject.missing)
        self.test = self.plan.test
        self.main = "learned_top1" if self.subject.learned else "rules"

    def report(self) -> QualityReport:
        started = time.perf_counter()
        subject, arms = self.subject, arms_of(self.subject)
        every = (*arms, UNIFIED_ARM) if subject.unified is not None else arms
        table = self.bench.measure_samples(self.test, every)
        picked_on = table if self.plan.oracle_seeds == 1 else self.bench.measure_samples(self.test, arms, draw="pick")
        validation = self.bench.measure_samples(self.plan.validation, subject.experts)
        absent = self.bench.measure_samples(self.plan.infeasible, every)

        single = best_single(validation, subject.experts)
        deciders = {"rules": self._rules} | ({"learned_top1": self._learned} if subject.learned else {})
        at = subject.feasible_threshold
        decided = {name: decide_all(self.test, decide, threshold=at) for name, decide in deciders.items()}
        doubted = {
            name: decide_all(self.plan.infeasible, decide, threshold=at) if self.plan.infeasible else None
            for name, decide in deciders.items()
        }

        outcomes: dict[str, Sequence[Outcome]] = {"identity": identity_outcomes(self.test), "base": table["base"]}
        outcomes |= {f"expert:{name}": table[name] for name in subject.experts}
        outcomes["best_single"] = table[single]
        if subject.unified is not None:
            outcomes[UNIFIED] = table[UNIFIED_ARM]
        outcomes |= {name: looked_up(table, one.first) for name, one in decided.items()}
        outcomes["oracle"] = looked_up(table, oracle_choice(picked_on, arms))
        seconds = {name: one.seconds for name, one in decided.items()}
        if subject.learned:
            pairs = decide_all(self.test, self._learned_pair)
            outcomes["learned_top2"], seconds["learned_top2"] = self._mixtures(table, pairs), pairs.seconds
        rows = {name: row_of(made, routing_seconds=seconds.get(name, 0.0)) for name, made in outcomes.items()}
        rows["random"] = random_row(table, subject.experts)

        document: dict[str, Any] = {"version": VERSION, "rows": self._rows(rows)}
        document["rows"]["best_single"] |= {
            "expert": single,
            "validation": {name: share(row_of(validation[name]).compliant) for name in subject.experts},
        }
        picks = "other noise" if self.plan.oracle_seeds == 2 else "the noise it is scored on"
        flattered = row_of(looked_up(table, oracle_choice(table, arms)))
        document["rows"]["oracle"] |= {"picked_on": picks, "picked_on_own_noise": share(flattered.compliant)}

        for name, key in (("learned_top1", "router"), ("rules", "rules_router")):
            document[key] = None
            if name in decided:
                of = {"own": rows[name], "best_single": rows["best_single"], "oracle": rows["oracle"]}
                document[key] = router_report(self.test, decided[name], doubted[name], subject.competences(), of)
        document |= {
            f"learned_minus_{name}": _difference(rows.get("learned_top1"), rows.get(name))
            for name in (UNIFIED, "best_single", "rules", "random")
        }
        document["chains"] = self._chains()
        beside = {name: outcomes[name] for name in ("base", UNIFIED, "rules", "learned_top1") if name in outcomes}
        document["reference"] = reference_section(self.test, beside, self.main)
        document["identity_edits"] = identity_section(self.test, beside, self.main)
        document["infeasible"] = infeasible_section(self._absent(absent, doubted))
        document["codec"] = self._codec()
        document["missing"] = self.missing
        document["goals"] = verdicts(document)
        document["environment"] = self._environment(time.perf_counter() - started)
        return QualityReport(document, self._gallery(outcomes))

    def _rows(self, rows: Mapping[str, Row]) -> dict[str, Any]:
        """In the table's order; None for a row that cannot be made, whose reason is in `missing`."""
        order = ["identity", "base", *(f"expert:{name}" for name in self.subject.experts)]
        order += ["best_single", UNIFIED, "random", "rules", "learned_top1", "learned_top2", "oracle"]
        kinds = kinds_of(self.test)
        return {name: rows[name].document(kinds) if name in rows else None for name in order}

    def _rules(self, sample: Sample) -> RoutingDecision:
        return self.subject.rules.route(features_of(request_for(sample, size=PANEL)), top_k=1)

    def _learned(self, sample: Sample, picture: Image.Image | None = None, top_k: int = 1) -> RoutingDecision:
        changes: dict[str, Any] = {"top_k": top_k} | ({} if picture is None else {"image": picture})
        return self.subject.editor.route(request_for(sample, size=PANEL).model_copy(update=changes))

    def _learned_pair(self, sample: Sample) -> RoutingDecision:
        return self._learned(sample, top_k=2)

    def _mixtures(self, table: Mapping[str, Sequence[Outcome]], pairs: Decisions) -> list[Outcome]:
        """Real edits by mixtures; where the router names one expert only, what that one made."""
        tasks = {
            i: Task(sample, dict(one.weights), self.plan.noise(sample), keep=sample.id in self.plan.shown)
            for i, (sample, one) in enumerate(zip(self.test, pairs.decisions, strict=True))
            if len(one.weights) > 1
        }
        made = dict(zip(tasks, self.bench.measure(list(tasks.values())), strict=True))
        self.bench.done(len(self.test) - len(made))
        return [made[i] if i in made else table[name][i] for i, name in enumerate(pairs.first)]

    def _chains(self) -> dict[str, Any]:
        def by_router(sample: Sample, picture: Image.Image) -> Arm:
            decision = self._learned(sample, picture) if self.subject.learned else self._rules(sample)
            return max(decision.weights, key=lambda name: decision.weights[name])

        choose: dict[str, Callable[[Sample, Image.Image], Arm]] = {self.main: by_router}
        if self.subject.unified is not None:
            choose[UNIFIED] = lambda *_: UNIFIED_ARM
        return chain_section(self.bench, self.plan.chains, choose, self.main)

    def _absent(
        self, table: Mapping[str, Sequence[Outcome]], doubted: Mapping[str, Decisions | None]
    ) -> dict[str, Sequence[Outcome]]:
        rows: dict[str, Sequence[Outcome]] = {"base": table["base"]}
        if UNIFIED_ARM in table:
            rows[UNIFIED] = table[UNIFIED_ARM]
        return rows | {name: looked_up(table, one.first) for name, one in doubted.items() if one is not None}

    def _codec(self) -> dict[str, Any]:
        row = row_of(codec_outcomes(self.subject.editor.engine.base, self.test))
        return {
            **share(row.compliant),
            "preservation_error": float(row.preservation_error.mean()),
            "preservation_error_softened": float(row.softened_error.mean()),
            "l1": float(row.l1.mean()),
        }

    def _environment(self, seconds: float) -> dict[str, Any]:
        subject, plan = self.subject, self.plan
        unified = None if subject.unified is None else next(iter(subject.unified.expert_set.manifests.values()))
        expert_set = subject.editor.expert_set
        return {
            "expert_set": expert_set.name,
            "expert_set_version": expert_set.version,
            "expert_set_sha256": expert_set.sha256,
            "experts": {name: one.rank for name, one in expert_set.manifests.items()},
            "unified_rank": None if unified is None else unified.rank,
            "unified_sha256": None if unified is None else unified.sha256,
            "router": subject.editor.router.name,
            "n": len(plan.test),
            "validation_n": len(plan.validation),
            "infeasible_n": len(plan.infeasible),
            "chains_n": len(plan.chains),
            "seed": plan.seed,
            "oracle_seeds": plan.oracle_seeds,
            "steps": subject.steps,
            "batch": self.bench.batch,
            "application": subject.editor.application,
            "interval": LEVEL,
            "resamples": RESAMPLES,
            "run_seconds": seconds,
            **environment(subject.editor.engine.base),
        }

    def _gallery(self, outcomes: Mapping[str, Sequence[Outcome]]) -> tuple[Shown, ...]:
        return tuple(
            Shown(sample, {name: row[i] for name, row in outcomes.items() if row[i].picture is not None})
            for i, sample in enumerate(self.test)
            if sample.id in self.plan.shown
        )


def _difference(row: Row | None, other: Row | None) -> dict[str, Any] | None:
    """Percentage points of compliance between two rows, paired scene by scene; None where one of them is missing."""
    if row is None or other is None:
        return None
    points = 100 * (row.compliant - other.compliant)
    return {"points": float(points.mean()), "ci": list(bootstrap_mean(points))}
