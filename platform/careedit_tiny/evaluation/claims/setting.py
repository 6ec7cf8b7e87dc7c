"""With what a claim is measured: the expert set, the scenes, the cache, and the share of the training budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from careedit.editor import Editor
from careedit.experts import with_other_experts
from careedit.records import RoutingDecision
from careedit.scoring import Scorer
from careedit.stats import Floats
from careedit_eval.editors.local import UNIFIED as UNIFIED_ARM
from careedit_tiny.evaluation.claims.claim import NotMeasuredError
from careedit_tiny.evaluation.common import Cache
from careedit_tiny.evaluation.quality import Bench, Outcome, Plan, Subject, Task
from careedit_tiny.evaluation.quality.measure import Arm
from careedit_tiny.evaluation.quality.subject import UNIFIED
from careedit_tiny.models.family import PANEL
from careedit_tiny.world.samples import Sample, draw_sample, request_for


@dataclass(frozen=True, eq=False)
class Setting:
    """Everything that the measurement of a claim needs."""

    subject: Subject
    """The expert set that is measured."""
    out: Path
    """The folder of the run."""
    n: int
    """The number of test scenes per claim."""
    seed: int = 0
    """Decides the noise of every edit, and the first weights, data order and noise of every training."""
    minutes: float = 10.0
    """Minutes of training for one claim that trains. Default: 10."""
    batch: int = 8
    """Edits that are denoised together. Default: 8."""
    judge: Scorer | None = None
    """The judge of the early filter. None: rows of the judge are not measured."""
    done: Callable[[int], None] = lambda _: None
    """Called with the number of edits that were made, or found in the cache."""
    decisions: dict[tuple[Sample, int], RoutingDecision] = field(default_factory=dict)
    """Decisions of the set's router that were made already, by sample and top-k."""

    @cached_property
    def bench(self) -> Bench:
        """Makes the edits that the run's cache lacks."""
        return Bench(
            self.subject, Plan(self.n, self.seed), Cache(Outcome, self.out / "cache" / "edits"), self.batch, self.done
        )

    @property
    def pictures(self) -> Path:
        """The folder of the run's plots."""
        return self.out / "pictures"

    def samples(self, kind: str) -> list[Sample]:
        """The first `n` test samples of a kind of edit."""
        return [draw_sample(kind, i, "test") for i in range(self.n)]

    def need_unified(self) -> str:
        """The arm of the unified LoRA. Raises `NotMeasuredError` if the set has none."""
        if self.subject.unified is None:
            raise NotMeasuredError(self.subject.missing[UNIFIED])
        return UNIFIED_ARM

    def need_expert(self, competence: str) -> str:
        """The name of the first expert with a competence. Raises `NotMeasuredError` if the set has none."""
        for name, manifest in self.subject.editor.expert_set.manifests.items():
            if manifest.competence == competence:
                return name
        raise NotMeasuredError(f"The set has no expert with the competence {competence!r}.")

    def need_learned(self) -> None:
        """Raises `NotMeasuredError` if the set's router was not trained."""
        if not self.subject.learned:
            raise NotMeasuredError(self.subject.missing["router"])

    def route(self, sample: Sample, top_k: int = 1) -> RoutingDecision:
        """The decision of the set's own router on a sample."""
        key = (sample, top_k)
        if key not in self.decisions:
            request = request_for(sample, size=PANEL).model_copy(update={"top_k": top_k})
            self.decisions[key] = self.subject.editor.route(request)
        return self.decisions[key]

    def routed(self, sample: Sample) -> str:
        """The expert that the set's own router chooses for a sample, or the base."""
        weights = self.route(sample).weights
        return max(weights, key=lambda name: weights[name])

    def edit(self, samples: Sequence[Sample], arms: Arm | Sequence[Arm]) -> list[Outcome]:
        """Edits by one arm, or by one arm per sample. Samples with one id start from the same noise."""
        each = arms if isinstance(arms, list) else [arms] * len(samples)
        plan = self.bench.plan
        return self.bench.measure(
            [Task(sample, arm, plan.noise(sample)) for sample, arm in zip(samples, each, strict=True)]
        )

    def with_experts(self, folders: Sequence[Path]) -> Setting:
        """The same scenes and cache with other experts on the set's base: those in `folders`."""
        subject = self.subject
        base = subject.editor.engine.base
        editor = Editor(
            with_other_experts(subject.editor.expert_set, folders),
            device=base.device,
            dtype=base.dtype,
            application="merged",
        )
        return replace(self, subject=replace(subject, editor=editor, unified=None), decisions={})


def right(outcomes: Sequence[Outcome]) -> Floats:
    """1 for each edit that is right, else 0; [n]."""
    return np.array([float(one.compliant) for one in outcomes])


def errors(outcomes: Sequence[Outcome]) -> Floats:
    """The mean absolute difference of each edit from the right result; [n]."""
    return np.array([one.l1 for one in outcomes])
