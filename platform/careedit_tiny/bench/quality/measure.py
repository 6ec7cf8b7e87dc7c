"""Making the edits: those that the cache lacks, in batches that share an expert."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from PIL import Image

from careedit.editor import MAX_BATCH
from careedit.errors import ExpertError
from careedit.images import image_sha256
from careedit.records import BASE, EditRequest, EditResult
from careedit_tiny.bench.quality.outcomes import Outcome, OutcomeCache, judge_outcome, outcome_key
from careedit_tiny.bench.quality.plan import Plan
from careedit_tiny.bench.quality.subject import UNIFIED, UNIFIED_ARM, Subject
from careedit_tiny.models.family import PANEL
from careedit_tiny.report.showcase import request_for
from careedit_tiny.world.samples import Sample

Arm = str | Mapping[str, float]
"""Who edits: `BASE`, an expert, `UNIFIED_ARM`, or a mixture's weights."""
Done = Callable[[int], None]
"""Called with the number of edits that were made, or found."""


@dataclass(frozen=True, eq=False)
class Task:
    """One edit to be measured."""

    sample: Sample
    """The scene, the words, the truth."""
    arm: Arm
    """Who edits."""
    noise: int
    """Seed of the noise."""
    keep: bool = False
    """Whether the picture is kept."""
    source: Image.Image | None = None
    """Another source than the scene's own: the edit of the turn before."""


@dataclass(frozen=True, eq=False)
class Bench:
    """All that a measurement needs."""

    subject: Subject
    """What edits."""
    plan: Plan
    """What is edited."""
    cache: OutcomeCache
    """What was measured before."""
    batch: int = MAX_BATCH
    """Edits denoised together, at most `MAX_BATCH`."""
    done: Done = lambda _: None
    """Told of progress."""

    def measure(self, tasks: Sequence[Task]) -> list[Outcome]:
        """The outcomes of `tasks`, in their order: from the cache, else edited now and put there batch by batch."""
        keys = [self._key(task) for task in tasks]
        found = [self.cache.get(key, picture=task.keep) for key, task in zip(keys, tasks, strict=True)]
        self.done(sum(one is not None for one in found))
        open_ = [i for i, one in enumerate(found) if one is None]
        for batch in self._batches(tasks, open_):
            made = self._edit([tasks[i] for i in batch])
            self.cache.put({keys[i]: outcome for i, outcome in zip(batch, made, strict=True)})
            for i, outcome in zip(batch, made, strict=True):
                found[i] = outcome
            self.done(len(batch))
        return [one for one in found if one is not None]

    def measure_samples(
        self, samples: Sequence[Sample], arms: Sequence[str], *, draw: str = "score"
    ) -> dict[str, list[Outcome]]:
        """Every arm on every scene: outcomes per arm, in the scenes' order. Pictures of `plan.shown` are kept."""
        tasks = [
            Task(sample, arm, self.plan.noise(sample, draw), keep=draw == "score" and sample.id in self.plan.shown)
            for arm in arms
            for sample in samples
        ]
        outcomes = iter(self.measure(tasks))
        return {arm: [next(outcomes) for _ in samples] for arm in arms}

    def _key(self, task: Task) -> str:
        source = None if task.source is None else image_sha256(task.source)
        return outcome_key(task.sample, self.subject.made_with(task.arm), noise=task.noise, source_sha256=source)

    def _batches(self, tasks: Sequence[Task], open_: Sequence[int]) -> Iterator[list[int]]:
        """Edits that share experts and the canvas's shape."""

        def alike(index: int) -> tuple[str, bool]:
            arm, sample = tasks[index].arm, tasks[index].sample
            return (arm if isinstance(arm, str) else "+".join(sorted(arm)), sample.reference is not None)

        for _, group in groupby(sorted(open_, key=alike), key=alike):
            indices = list(group)
            for first in range(0, len(indices), self.batch):
                yield indices[first : first + self.batch]

    def _edit(self, tasks: Sequence[Task]) -> list[Outcome]:
        one = tasks[0].arm
        editor = self.subject.editor
        if one == UNIFIED_ARM:
            if self.subject.unified is None:
                raise ExpertError(self.subject.missing[UNIFIED])
            editor = self.subject.unified
        requests = [self._request(task) for task in tasks]
        # Encodings are no part of what is compared, and would only pile up.
        editor.engine.cache.clear()
        results = editor.edit(requests)
        return [
            judge_outcome(task.sample, result.image, nfe=result.trace.nfe, seconds=_seconds(result), keep=task.keep)
            for task, result in zip(tasks, results, strict=True)
        ]

    def _request(self, task: Task) -> EditRequest:
        arm = task.arm
        if arm == UNIFIED_ARM and self.subject.unified is not None:
            arm = self.subject.unified.expert_set.names[0]
        request = request_for(task.sample, seed=task.noise, expert=arm, size=PANEL)
        changes: dict[str, object] = {"steps": self.subject.steps}
        if task.source is not None:
            changes["image"] = task.source
        return request.model_copy(update=changes)


def identity_outcomes(samples: Sequence[Sample]) -> list[Outcome]:
    """No edit at all: the source is the answer."""
    return [judge_outcome(sample, sample.source_image(PANEL), keep=False) for sample in samples]


def arms_of(subject: Subject) -> tuple[str, ...]:
    """`BASE` and every expert."""
    return (BASE, *subject.experts)


def _seconds(result: EditResult) -> float:
    """An edit's share of its batch's time; what routing took is counted where it is done."""
    trace = result.trace
    return sum(value for name, value in trace.seconds.items() if name != "route") / len(trace.batch)
