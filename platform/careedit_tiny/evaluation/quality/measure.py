"""Makes the edits that the cache lacks, in batches that share an expert."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from PIL import Image

from careedit.editor import MAX_BATCH
from careedit.errors import ExpertError
from careedit.images import image_sha256
from careedit.records import BASE, EditRequest, EditResult
from careedit_eval.editors.local import UNIFIED as UNIFIED_ARM
from careedit_tiny.evaluation.common import Cache
from careedit_tiny.evaluation.quality.outcomes import Outcome, judge_outcome, outcome_key
from careedit_tiny.evaluation.quality.plan import Plan
from careedit_tiny.evaluation.quality.subject import UNIFIED, Subject
from careedit_tiny.models.family import PANEL
from careedit_tiny.world.samples import Sample, request_for

Arm = str | Mapping[str, float]
"""What edits: `BASE`, an expert, `UNIFIED_ARM`, or the weights of a mixture."""
Done = Callable[[int], None]
"""Called with the number of edits that were made, or found in the cache."""


@dataclass(frozen=True, eq=False)
class Task:
    """One edit to be measured."""

    sample: Sample
    """The scene with its instruction and its right result."""
    arm: Arm
    """The expert or mixture that edits the scene."""
    noise: int
    """The seed of the noise."""
    keep: bool = False
    """Whether the edited image is kept, to be shown or edited further."""
    source: Image.Image | None = None
    """The image to edit; None for the scene's own source. Later turns of a chain edit the result of the turn before."""


@dataclass(frozen=True, eq=False)
class Bench:
    """Everything that a measurement needs."""

    subject: Subject
    """The expert set that is measured."""
    plan: Plan
    """The scenes and the noise."""
    cache: Cache[Outcome]
    """The outcomes of earlier runs, by key."""
    batch: int = MAX_BATCH
    """Edits that are denoised together, at most `MAX_BATCH`."""
    done: Done = lambda _: None
    """Called after each batch, for the progress bar."""

    def measure(self, tasks: Sequence[Task]) -> list[Outcome]:
        """The outcomes of `tasks`, in their order: from the cache, or edited now and cached batch by batch."""
        keys = [self._key(task) for task in tasks]
        found = [self._cached(key, task) for key, task in zip(keys, tasks, strict=True)]
        self.done(sum(one is not None for one in found))
        open_ = [i for i, one in enumerate(found) if one is None]
        for batch in self._batches(tasks, open_):
            edited = self._edit([tasks[i] for i in batch])
            made = [replace(outcome, key=keys[i]) for i, outcome in zip(batch, edited, strict=True)]
            self.cache.put(made)
            for i, outcome in zip(batch, made, strict=True):
                found[i] = outcome
            self.done(len(batch))
        return [one for one in found if one is not None]

    def measure_samples(
        self, samples: Sequence[Sample], arms: Sequence[str], *, draw: str = "score"
    ) -> dict[str, list[Outcome]]:
        """Every arm on every scene: outcomes per arm, in the scenes' order. The images of `plan.shown` are kept."""
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

    def _cached(self, key: str, task: Task) -> Outcome | None:
        found = self.cache.get(key)
        return None if found is not None and task.keep and found.picture is None else found

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
        editor = self.subject.editor
        if tasks[0].arm == UNIFIED_ARM:
            if self.subject.unified is None:
                raise ExpertError(self.subject.missing[UNIFIED])
            editor = self.subject.unified
        # Cached encodings are not part of what is compared, and would only use memory.
        editor.engine.cache.clear()
        results = editor.edit([self._request(task) for task in tasks])
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


def arms_of(subject: Subject) -> tuple[str, ...]:
    """`BASE` and every expert."""
    return (BASE, *subject.experts)


def _seconds(result: EditResult) -> float:
    """An edit's share of the time of its batch. Routing is timed where the routers are measured."""
    trace = result.trace
    return sum(value for name, value in trace.seconds.items() if name != "route") / len(trace.batch)
