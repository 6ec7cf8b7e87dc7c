"""A set without a model: experts that are right exactly where their competence is needed, and a router with known flaws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from careedit.records import EditRequest, RoutingDecision
from careedit.routing import build_router
from careedit_tiny.evaluation.common import Cache
from careedit_tiny.evaluation.quality import (
    Bench,
    Outcome,
    Plan,
    QualityReport,
    Subject,
    judge_outcome,
    measure_quality,
)
from careedit_tiny.evaluation.quality.measure import Done
from careedit_tiny.world.samples import Sample

EXPERTS = {
    "erase": ("remove",),
    "compose": ("add", "replace", "action", "counting", "relation", "attribute"),
    "style": ("style", "background"),
    "identity": ("identity",),
    "reference": ("reference",),
}
STEPS = 8
PLAN = Plan(n=24, validation_n=12, infeasible_n=4, chains_n=2)


class FakeEditor:
    """Gives the truth where the expert is the one that is needed (the unified LoRA: on every other scene), else the source.

    Its router is right on seen phrasings and takes the erase expert on held-out ones; it sees what cannot be done.
    """

    application = "merged"

    def __init__(self, plan: Plan, *, unified: bool, learned: bool, edits: list[int]) -> None:
        samples = [*plan.test, *plan.validation, *plan.infeasible, *(turn for chain in plan.chains for turn in chain)]
        self.unified, self.edits = unified, edits
        self.samples: dict[str, list[Sample]] = {}
        for sample in samples:
            self.samples.setdefault(sample.instruction, []).append(sample)
        self.half = {sample.id for sample in plan.test[::2]}
        names = ["unified"] if unified else list(EXPERTS)
        manifests = {
            name: SimpleNamespace(
                name=name, competence=name, handles=EXPERTS.get(name, ()), sha256=name, alpha=1.0, rank=8
            )
            for name in names
        }
        spec = SimpleNamespace(
            base=SimpleNamespace(sha256="base", fingerprint="print"),
            panel=SimpleNamespace(model_dump=lambda **_: {"size": 64}),
            defaults=SimpleNamespace(guidance=None, steps=STEPS, start="noise", noise_scale=1.0),
        )
        self.expert_set = SimpleNamespace(
            name="fake", version="1", sha256="ab" * 32, names=tuple(names), manifests=manifests, spec=spec
        )
        vae = SimpleNamespace(
            dtype=torch.float32,
            encode=lambda x: SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: x)),
            decode=lambda z: SimpleNamespace(sample=z),
        )
        base = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32, vae=vae)
        self.engine = SimpleNamespace(base=base, cache=SimpleNamespace(clear=lambda: None))
        self.router: Any = SimpleNamespace(name="transformer")
        if not learned:
            self.router = build_router("rules", experts=tuple(manifests.values()))

    def sample(self, request: EditRequest) -> Sample:
        alike = self.samples[request.instruction]
        if len(alike) == 1:
            return alike[0]
        source = request.image.tobytes()
        return next((one for one in alike if one.source_image().tobytes() == source), alike[0])

    def edit(self, requests: Sequence[EditRequest]) -> list[Any]:
        self.edits.append(len(requests))
        return [self._result(request, len(requests)) for request in requests]

    def _result(self, request: EditRequest, batch: int) -> Any:
        sample = self.sample(request)
        weights: Mapping[str, float] = {request.expert: 1.0} if isinstance(request.expert, str) else request.expert
        right = sample.id in self.half if self.unified else sample.expert in weights
        trace = SimpleNamespace(nfe=STEPS * len(weights), seconds={"route": 9.0, "denoise": batch}, batch=[0] * batch)
        return SimpleNamespace(image=sample.target_image() if right else request.image, trace=trace)

    def route(self, request: EditRequest) -> RoutingDecision:
        sample = self.sample(request)
        first = "erase" if sample.held_out_phrasing else sample.expert
        second = "style" if first != "style" else "compose"
        weights = {first: 0.75, second: 0.25} if request.top_k == 2 else {first: 1.0}
        return RoutingDecision(
            weights=weights,
            probabilities={first: 0.75, second: 0.25},
            feasible=0.9 if sample.feasible else 0.1,
            entropy=0.5,
            router="transformer",
            reason="Because.",
        )


@pytest.fixture(scope="session")
def judged_once() -> Iterator[None]:
    """The fake editor gives the truth or the source only, so each is judged once for all arms and runs."""
    known: dict[Any, Outcome] = {}

    def judge(sample: Sample, image: Image.Image, *, keep: bool = False, **figures: Any) -> Outcome:
        key = (sample.id, image.tobytes())
        if key not in known:
            known[key] = judge_outcome(sample, image, keep=True)
        return replace(known[key], **figures, **({} if keep else {"picture": None}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("careedit_tiny.evaluation.quality.measure.judge_outcome", judge)
        patch.setattr("careedit_tiny.evaluation.quality.outcomes.judge_outcome", judge)
        yield


@pytest.fixture(scope="session")
def run(judged_once: None) -> Callable[..., tuple[QualityReport, list[int]]]:
    """`run(unified=True, learned=True, cache=...)`: a report, and the sizes of the batches that were edited."""

    def make(
        *,
        unified: bool = True,
        learned: bool = True,
        cache: Cache[Outcome] | None = None,
        plan: Plan = PLAN,
        done: Done = lambda _: None,
    ) -> tuple[QualityReport, list[int]]:
        edits: list[int] = []
        editor: Any = FakeEditor(plan, unified=False, learned=learned, edits=edits)
        other: Any = FakeEditor(plan, unified=True, learned=learned, edits=edits) if unified else None
        missing = {} if unified else {"unified": "There is no unified LoRA."}
        if not learned:
            missing |= dict.fromkeys(("learned_top1", "learned_top2", "router"), "There is no learned router.")
        rules = build_router("rules", experts=tuple(editor.expert_set.manifests.values()))
        subject = Subject(editor, other, STEPS, rules, missing)
        return measure_quality(Bench(subject, plan, Cache(Outcome) if cache is None else cache, done=done)), edits

    return make


@dataclass(frozen=True)
class Recorded:
    """A run with what can be seen of it from outside."""

    report: QualityReport
    batches: list[int]
    """The sizes of the batches that were edited."""
    progress: list[int]
    """The numbers of edits that were reported as finished."""
    cache: Path
    """The folder of its cache."""


@pytest.fixture(scope="session")
def recorded(run: Callable[..., tuple[QualityReport, list[int]]], tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A run with a unified LoRA and a learned router."""
    folder, progress = tmp_path_factory.mktemp("outcomes"), []
    report, batches = run(cache=Cache(Outcome, folder), done=progress.append)
    return Recorded(report, batches, progress, folder)


@pytest.fixture(scope="session")
def report(recorded: Recorded) -> QualityReport:
    """With a unified LoRA and a learned router."""
    return recorded.report


@pytest.fixture(scope="session")
def lacking(run: Callable[..., tuple[QualityReport, list[int]]]) -> QualityReport:
    """With neither."""
    return run(unified=False, learned=False)[0]
