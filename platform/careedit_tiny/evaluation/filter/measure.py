"""Measures a scene: every candidate is denoised once per schedule, and every chooser scores the previews.

The choice of every strategy can then be looked up in the scene's table.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from careedit.editor import Editor
from careedit.encoders import OpenClipEncoder
from careedit.errors import InputError
from careedit.files import json_digest
from careedit.records import BASE, mixture_rows
from careedit.scoring import Scorer, VqaScorer
from careedit.scoring.clip import ClipScorer
from careedit.scoring.pairwise import Pair, compare, order_consistency
from careedit.selection.plan import JudgeFailed, Plan, Race, race
from careedit.selection.run import Slot
from careedit_tiny.evaluation.common import Cache
from careedit_tiny.evaluation.filter.plan import FilterPlan, look_key
from careedit_tiny.models.family import PANEL
from careedit_tiny.oracle.compare import Thresholds
from careedit_tiny.oracle.verdict import judge as verdict_on
from careedit_tiny.recipes.clip.captions import caption_of
from careedit_tiny.world.samples import Sample, request_for

SIDE = PANEL
"""The side of every image in pixels: the panel of the tiny family."""
NEAREST = "oracle_preview"
"""The choice of the preview whose pixels are nearest to the right result."""
JUDGE, CLIP, CLIP_CAPTION = "judge", "clip", "clip_caption"
"""The choice by the judge; by CLIP and the instruction; by CLIP and a caption of the right result."""

ORACLE = "oracle"
"""The choice by the oracle's verdict on the finished edit: the upper bound of any choice."""
VERSION = 2
"""Part of every key. Raise it when the same scene would give another table."""

Pictures = dict[str, list[Image.Image]]
"""Per preview: one image per candidate."""


@dataclass(frozen=True, slots=True)
class SceneTable:
    """The results of all candidates of one scene. Sequences have one entry per candidate."""

    sample: str
    """The id of the scene."""
    kind: str
    """The kind of edit, such as "remove"."""
    rows: int
    """Evaluations of the transformer per step: one per expert of the mixture."""
    right: tuple[bool, ...]
    """Whether each finished edit is right, by the oracle."""
    scores: Mapping[str, Mapping[str, tuple[float | None, ...]]]
    """Scores by chooser and preview (`look_key`); None for a candidate without a score."""
    consistent: bool | None = None
    """Whether the judge named the same winner of a pair in both orders; None if it was not asked, or gave no answer."""
    denoise_seconds: float = 0.0
    """Wall-clock seconds per evaluation of the transformer."""
    judge_seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall-clock seconds per scored image, by chooser."""
    key: str = ""
    """The hash of everything that the table depends on; empty for a table that is not cached."""

    def race(self, plan: Plan, chooser: str) -> Race:
        """What the strategy would choose, by `careedit.selection.plan.race`, the rule of the real filter."""

        def scores_at(steps: int, alive: tuple[int, ...]) -> list[float | None]:
            key = look_key(plan.steps, plan.steps) if chooser == ORACLE else look_key(plan.schedule, steps)
            found = [self.scores[chooser][key][i] for i in alive]
            if all(score is None for score in found):
                raise JudgeFailed("the judge gave no score")
            return found

        return race(plan, scores_at)


@dataclass(frozen=True, eq=False)
class FilterBench:
    """Everything that a measurement needs."""

    editor: Editor
    """The editor of the expert set."""
    plan: FilterPlan
    """The scenes and the settings of the filter."""
    judge: Scorer | None = None
    """The judge; None leaves its rows out of the table."""
    encoder: OpenClipEncoder | None = None
    """A CLIP model; None leaves its rows out of the table."""
    encoder_name: str = "clip"
    """The name of the CLIP model in the report."""
    cache: Cache[SceneTable] = field(default_factory=lambda: Cache(SceneTable))
    """The tables of earlier runs, by key."""
    done: Callable[[int], None] = lambda _: None
    """Called with the number of scenes that were measured, or found in the cache."""
    scenes: Sequence[Sequence[Sample]] = ()
    """Scenes instead of the plan's, each with all its right results: samples that differ in nothing but the target."""

    def tables(self) -> list[SceneTable]:
        """A table per scene, in the plan's order."""
        tables = []
        for sample, *others in self.scenes or [(sample,) for sample in self.plan.samples]:
            key = self._key(sample, others)
            table = self.cache.get(key)
            if table is None:
                table = replace(self.measure(sample, others), key=key)
                self.cache.put([table])
            tables.append(table)
            self.done(1)
        return tables

    def measure(self, sample: Sample, others: Sequence[Sample] = ()) -> SceneTable:
        """Measure one scene. An edit is also right if it is that of one of `others`."""
        slot = self.slot(sample)
        rows = len(mixture_rows(slot.job.weights, masked=slot.job.mask is not None))
        panels, seconds, evaluations = self._denoise(slot)
        pictures = {key: [slot.picture(panel) for panel in row] for key, row in panels.items()}
        previews = {key: [slot.preview(panel) for panel in row] for key, row in panels.items()}
        last = look_key(self.plan.steps, self.plan.steps)
        finished = pictures[last]
        every = (sample, *others)
        right = tuple(any(verdict_on(one, picture).compliant for one in every) for picture in finished)
        scores: dict[str, dict[str, tuple[float | None, ...]]] = {}
        spent: dict[str, float] = {}
        for name, scorer in self._scorers(sample).items():
            scores[name], spent[name] = _ask(scorer, slot, previews)
        truths = [np.asarray(one.target_image(SIDE), np.float32) / 255 for one in every]
        scores[NEAREST] = {
            key: tuple(max(_nearness(one, truth) for truth in truths) for one in row) for key, row in pictures.items()
        }
        # Of several right edits, or if none is right, the nearest: then the bound does not depend on the candidates' order.
        scores[ORACLE] = {
            last: tuple(
                (yes + near) / 2 for yes, near in zip(right, scores[NEAREST][last], strict=True) if near is not None
            )
        }
        return SceneTable(
            sample=sample.id,
            kind=sample.kind,
            rows=rows,
            right=right,
            scores=scores,
            consistent=self._consistent(slot, previews[last], right),
            denoise_seconds=seconds / (evaluations * rows),
            judge_seconds=spent,
        )

    def slot(self, sample: Sample) -> Slot:
        """The edit of a scene as the editor makes it, router included."""
        request = request_for(sample, seed=self.plan.noise(sample), size=SIDE)
        return self.editor.slots(request.model_copy(update={"steps": self.plan.steps}))[0]

    def _denoise(self, slot: Slot) -> tuple[Pictures, float, int]:
        """The target panels of every preview, the seconds of denoising, and the number of steps of all candidates together."""
        engine, panels = self.editor.engine, Pictures()
        engine.cache.clear()
        spent, evaluations = 0.0, 0
        with engine.applier.lease(set(slot.job.weights) - {BASE}):
            for schedule, looks in self.plan.looks.items():
                jobs = [replace(slot.job, seed=slot.job.seed + j, steps=schedule) for j in range(self.plan.most)]
                states = [engine.prepare(job) for job in jobs]
                for after in range(1, looks[-1] + 1):
                    started = time.perf_counter()
                    engine.step(states)
                    spent += time.perf_counter() - started
                    evaluations += len(states)
                    if after in looks:
                        panels[look_key(schedule, after)] = engine.preview_many(states)
        return panels, spent, evaluations

    def _scorers(self, sample: Sample) -> dict[str, Scorer]:
        scorers: dict[str, Scorer] = {}
        if self.judge is not None:
            scorers[JUDGE] = self.judge
        if self.encoder is not None:
            words = str(caption_of(sample.target, random.Random(f"filter:{sample.id}"), whole=True))
            scorers[CLIP] = ClipScorer(self.encoder, model=self.encoder_name)
            scorers[CLIP_CAPTION] = ClipScorer(self.encoder, model=self.encoder_name, text_of=lambda _: words)
        return scorers

    def _consistent(self, slot: Slot, finished: Sequence[Image.Image], right: Sequence[bool]) -> bool | None:
        """Compare one pair in both orders: a right and a wrong edit if both exist, else the first two."""
        if not isinstance(self.judge, VqaScorer) or len(finished) < 2:
            return None
        first, second = (right.index(True), right.index(False)) if len(set(right)) == 2 else (0, 1)
        request = slot.request
        pair = Pair(
            source=slot.question(finished[first]).source,
            first=finished[first],
            second=finished[second],
            instruction=request.instruction,
            references=request.references,
        )
        try:
            return order_consistency(compare(self.judge.asker, [pair])) == 1.0
        except InputError:  # no answer could be read
            return None

    def _key(self, sample: Sample, others: Sequence[Sample]) -> str:
        base = self.editor.engine.base
        return json_digest(
            {
                "version": VERSION,
                "sample": sample.to_dict(),
                **({"others": [one.to_dict() for one in others]} if others else {}),
                "oracle": dataclasses.asdict(Thresholds()),
                "expert_set": self.editor.expert_set.sha256,
                "device": base.device.type,
                "dtype": str(base.dtype),
                "noise": self.plan.noise(sample),
                "most": self.plan.most,
                "looks": {str(schedule): looks for schedule, looks in self.plan.looks.items()},
                "judge": None if self.judge is None else self.judge.identity.model_dump(),
                "clip": None if self.encoder is None else self.encoder_name,
            }
        )[:32]


def _ask(
    scorer: Scorer, slot: Slot, pictures: Mapping[str, Sequence[Image.Image]]
) -> tuple[dict[str, tuple[float | None, ...]], float]:
    """Scores by preview, and the seconds per image."""
    questions: list[Any] = [slot.question(picture) for row in pictures.values() for picture in row]
    started = time.perf_counter()
    scores = iter(scorer.score(questions))
    seconds = (time.perf_counter() - started) / len(questions)
    return {key: tuple(next(scores).overall for _ in row) for key, row in pictures.items()}, seconds


def _nearness(picture: Image.Image, truth: np.ndarray) -> float:
    """1 minus the mean absolute difference from the right result."""
    return 1 - float(np.abs(np.asarray(picture, np.float32) / 255 - truth).mean())
