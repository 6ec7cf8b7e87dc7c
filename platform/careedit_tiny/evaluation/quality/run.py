"""One run of `careedit eval quality`: measure what is missing, look up the rows, and compare the figures with the goals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from careedit.bench.report import Goal
from careedit.editing.base_model import use_threads
from careedit.records import RoutingDecision
from careedit.routing import features_of
from careedit.stats import bootstrap_mean
from careedit_eval.editors.local import UNIFIED as UNIFIED_ARM
from careedit_eval.stats.routing import Compliance, Decisions, decide_all, routing_report
from careedit_tiny.evaluation.common import Aim, Document, figure, run_facts, verdicts
from careedit_tiny.evaluation.quality.measure import Arm, Bench, Task, arms_of
from careedit_tiny.evaluation.quality.outcomes import Outcome, codec_outcomes, identity_outcomes
from careedit_tiny.evaluation.quality.rows import (
    Row,
    best_single,
    kinds_of,
    looked_up,
    oracle_choice,
    random_row,
    row_of,
    share,
)
from careedit_tiny.evaluation.quality.sections import (
    chain_section,
    identity_section,
    infeasible_section,
    reference_section,
)
from careedit_tiny.evaluation.quality.subject import UNIFIED
from careedit_tiny.models.family import PANEL
from careedit_tiny.world.samples import Sample, request_for

VERSION = 1
"""The version of the document's layout."""


def _worst_kind(document: Document) -> float | None:
    row = document["rows"]["learned_top1"]
    return None if row is None else min(kind["compliance"] for kind in row["by_kind"].values())


LEARNED, BOTH, ROUTER = ("learned_top1",), ("learned_top1", "unified"), ("router",)
GOALS: Mapping[str, Aim] = {
    "compliance": Aim(Goal("at least", 0.85), figure("rows", "learned_top1", "compliance"), LEARNED),
    "compliance_of_each_kind": Aim(Goal("at least", 0.65), _worst_kind, LEARNED),
    "preservation_error": Aim(Goal("at most", 0.015), figure("rows", "learned_top1", "preservation_error"), LEARNED),
    "learned_minus_unified": Aim(Goal("at least", 8.0), figure("learned_minus_unified", "points"), BOTH),
    "learned_minus_unified_low": Aim(Goal("above", 0.0), figure("learned_minus_unified", "ci", 0), BOTH),
    "router_accuracy_seen": Aim(Goal("at least", 0.97), figure("router", "accuracy_seen"), ROUTER),
    "router_accuracy_held_out": Aim(Goal("at least", 0.93), figure("router", "accuracy_held_out"), ROUTER),
    "router_ece": Aim(Goal("at most", 0.03), figure("router", "ece"), ROUTER),
    "router_gap_recovered": Aim(Goal("at least", 0.9), figure("router", "gap_recovered"), ROUTER),
    "infeasible_recall": Aim(Goal("at least", 0.9), figure("router", "infeasible_recall"), ROUTER),
    "infeasible_false_alarm": Aim(Goal("at most", 0.02), figure("router", "infeasible_false_alarm"), ROUTER),
    "chains_all_turns_right": Aim(Goal("at least", 0.6), figure("chains", "all_turns_right"), ("chains",)),
    "chains_drift_ratio": Aim(Goal("at most", 2.0), figure("chains", "drift_ratio"), ("chains",)),
    "reference_right_attribute": Aim(Goal("at least", 0.75), figure("reference", "right_attribute"), ("reference",)),
    "identity_drifted": Aim(Goal("at most", 0.02), figure("identity_edits", "drifted"), ("identity_edits",)),
}
"""The goals of the tiny family, in the order in which they are reported."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One scene with the results of all rows, to be shown."""

    sample: Sample
    """The scene with its instruction."""
    outcomes: Mapping[str, Outcome]
    """The outcomes by row; their images are kept."""


@dataclass(frozen=True, eq=False)
class QualityReport:
    """The results of a run."""

    document: dict[str, Any]
    """All figures, as JSON data."""
    gallery: tuple[Shown, ...]
    """One scene of each kind of edit, to be shown."""


def measure_quality(bench: Bench, *, threads: int | None = None) -> QualityReport:
    """Measure an expert set. Edits in `bench.cache` are not made again. Raises `InputError` and `ExpertError`."""
    with use_threads(threads), torch.no_grad():
        return _Run(bench).report()


class _Run:
    """The measurements of one run, in their order."""

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
                right = Compliance(*(rows[one].compliant for one in (name, "best_single", "oracle")))
                document[key] = self._routing(decided[name], doubted[name], right)
        document |= {
            f"learned_minus_{name}": _difference(rows.get("learned_top1"), rows.get(name))
            for name in (UNIFIED, "best_single", "rules", "random")
        }
        document["chains"] = self._chains()
        compared = {name: outcomes[name] for name in ("base", UNIFIED, "rules", "learned_top1") if name in outcomes}
        document["reference"] = reference_section(self.test, compared, self.main)
        document["identity_edits"] = identity_section(self.test, compared, self.main)
        document["infeasible"] = infeasible_section(self._absent(absent, doubted))
        document["codec"] = self._codec()
        document["missing"] = self.missing
        document["goals"] = verdicts(document, GOALS)
        document["environment"] = self._environment(time.perf_counter() - started)
        return QualityReport(document, self._gallery(outcomes))

    def _rows(self, rows: Mapping[str, Row]) -> dict[str, Any]:
        """The rows in the order of the table; None for a row that cannot be measured, with the reason in `missing`."""
        order = ["identity", "base", *(f"expert:{name}" for name in self.subject.experts)]
        order += ["best_single", UNIFIED, "random", "rules", "learned_top1", "learned_top2", "oracle"]
        kinds = kinds_of(self.test)
        return {name: rows[name].document(kinds) if name in rows else None for name in order}

    def _routing(self, decided: Decisions, doubted: Decisions | None, right: Compliance) -> dict[str, Any]:
        return routing_report(
            decided,
            doubted,
            right,
            kinds=kinds_of(self.test),
            needed=[sample.expert for sample in self.test],
            held_out=[sample.held_out_phrasing for sample in self.test],
            competences=self.subject.competences(),
        )

    def _rules(self, sample: Sample) -> RoutingDecision:
        return self.subject.rules.route(features_of(request_for(sample, size=PANEL)), top_k=1)

    def _learned(self, sample: Sample, picture: Image.Image | None = None, top_k: int = 1) -> RoutingDecision:
        changes: dict[str, Any] = {"top_k": top_k} | ({} if picture is None else {"image": picture})
        return self.subject.editor.route(request_for(sample, size=PANEL).model_copy(update=changes))

    def _learned_pair(self, sample: Sample) -> RoutingDecision:
        return self._learned(sample, top_k=2)

    def _mixtures(self, table: Mapping[str, Sequence[Outcome]], pairs: Decisions) -> list[Outcome]:
        """Edits by mixtures of two experts; if the router chooses a single expert, that expert's edit."""
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
        return run_facts(
            subject.editor,
            seconds,
            experts={name: one.rank for name, one in subject.editor.expert_set.manifests.items()},
            unified_rank=None if unified is None else unified.rank,
            unified_sha256=None if unified is None else unified.sha256,
            n=len(plan.test),
            validation_n=len(plan.validation),
            infeasible_n=len(plan.infeasible),
            chains_n=len(plan.chains),
            seed=plan.seed,
            oracle_seeds=plan.oracle_seeds,
            steps=subject.steps,
            batch=self.bench.batch,
            application=subject.editor.application,
        )

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
