"""The early filter: candidates are stepped in one batch, scored and dropped, until one state goes on."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from careedit.editing import EditJob, EditState, OnSteps, Stepper
from careedit.errors import InputError
from careedit.images import Fit, composite, image_sha256
from careedit.records import BatchSlot, EditRequest, FilterCandidate, FilterTrace, RoutingDecision
from careedit.scoring import Score, ScoreRequest
from careedit.selection.judge import Judge
from careedit.selection.plan import Plan, race
from careedit.selection.strategies import STRATEGIES

NO_JUDGE = "An early filter needs a judge; give the editor a scorer or leave early_filter out."


@dataclass(frozen=True, eq=False)
class Slot:
    """One image of a call: its job, the noises that are tried for it, and the way back to the user's picture."""

    request: EditRequest
    """The request that the image belongs to."""
    decision: RoutingDecision
    """The experts that edit, and why."""
    fit: Fit
    """How the source is placed on its panel."""
    mask: Image.Image | None
    """The mask, refined if the request asks for it, of the source's size; None: the whole picture may change."""
    job: EditJob
    """The input of the engine for this image."""
    route_seconds: float
    """Seconds that routing and fitting to the panel took."""
    plan: Plan
    """Checkpoints and cost of the early filter."""
    seeds: tuple[int, ...]
    """Seeds of the candidates, the job's own first."""

    def picture(self, panel: Image.Image) -> Image.Image:
        """The user's result from a target panel: of the source's size, and outside the mask the source's own pixels."""
        picture = self.fit.from_panel(panel)
        return picture if self.mask is None else composite(self.request.image, picture, self.mask)

    def preview(self, panel: Image.Image) -> Image.Image:
        """`picture` at the panel's scale, without its bars, so that judging costs the same for a source of any size."""
        mask = self.job.mask
        return (panel if mask is None else composite(self.job.source, panel, mask)).crop(self.fit.box)

    def question(self, preview: Image.Image) -> ScoreRequest:
        """The judge's input for a result of `preview`."""
        request = self.request
        return ScoreRequest(
            source=self.job.source.crop(self.fit.box),
            edited=preview,
            instruction=request.instruction,
            references=request.references,
        )

    def in_place_of(self, other: BatchSlot) -> Slot:
        """This slot with the steps and experts of another, and with a mask if that has one (any mask: only shapes matter)."""
        everything = Image.new("L", self.job.source.size, 255)
        mask = (self.job.mask or everything) if other.masked else None
        job = replace(
            self.job,
            steps=other.steps,
            weights=other.weights,
            mask=mask,
            text_tokens=other.text_tokens or None,
            step_cache=other.step_cache,
        )
        return replace(self, job=job)


def batches(slots: Sequence[Slot], maximum: int) -> list[list[Slot]]:
    """Slots that can share a batch (one canvas shape), in their order, at most `maximum` together.

    One with an early filter is a batch of its own: its candidates fill it.
    """
    groups: dict[Hashable, list[Slot]] = {}
    for slot in slots:
        alike = (
            id(slot) if slot.plan.checkpoints else (slot.job.source.size, *(one.size for one in slot.job.references))
        )
        groups.setdefault(alike, []).append(slot)
    return [group[i : i + maximum] for group in groups.values() for i in range(0, len(group), maximum)]


@dataclass(frozen=True, eq=False)
class Selected:
    """The result of an early filter."""

    state: EditState
    """The winner's state, ready for its next step; its `nfe` counts the evaluations of all candidates."""
    trace: FilterTrace
    """What was previewed, scored and chosen."""
    previews: tuple[Image.Image, ...]
    """The last preview of each candidate, as the judge saw it."""


@dataclass(eq=False)
class _Candidate:
    """One noise in the race."""

    state: EditState
    preview: Image.Image | None = None
    steps: int = 0
    score: Score | None = None


def select(stepper: Stepper, slot: Slot, judge: Judge | None, on_steps: OnSteps | None = None) -> Selected:
    """Try the slot's seeds by its plan and return the state of the best, ready to be stepped to the end.

    The caller leases the experts. Only the noise differs between candidates: the encodings come from the engine's cache.
    Raises `InputError` without a judge, and what `on_steps` raises.
    """
    plan, wanted = slot.plan, slot.request.early_filter
    if judge is None or wanted is None:
        raise InputError(NO_JUDGE, field="early_filter")
    field = [_Candidate(stepper.prepare(replace(slot.job, seed=seed, steps=plan.schedule))) for seed in slot.seeds]
    waited = 0.0

    def scores_at(steps: int, alive: tuple[int, ...]) -> list[float | None]:
        nonlocal waited
        ahead = [field[i] for i in alive]
        states = [candidate.state for candidate in ahead]
        stepper.advance(states, steps, on_steps)
        pictures = [slot.preview(panel) for panel in stepper.preview_many(states)]
        for candidate, picture in zip(ahead, pictures, strict=True):
            candidate.preview, candidate.steps, candidate.score = picture, steps, None
        started = time.perf_counter()
        try:
            scores = judge.score([slot.question(picture) for picture in pictures], timeout=wanted.timeout)
        finally:
            waited += time.perf_counter() - started
        for candidate, score in zip(ahead, scores, strict=True):
            candidate.score = score
        return [score.overall for score in scores]

    run = race(plan, scores_at)
    winner = field[run.chosen].state
    spent = sum(candidate.state.nfe for candidate in field)
    state = stepper.prepare(replace(slot.job, seed=winner.job.seed)) if plan.restarts else winner
    state.nfe = spent
    previews = tuple(candidate.preview for candidate in field if candidate.preview is not None)
    trace = FilterTrace(
        strategy=wanted.strategy,
        preview_steps=plan.preview_steps,
        candidates=tuple(_candidate_trace(*pair) for pair in zip(field, previews, strict=True)),
        looks=run.looks,
        chosen=run.chosen,
        exited_early=run.exited_early,
        nfe=spent,
        judge=judge.identity,
        judge_seconds=waited,
        degraded=run.degraded,
    )
    return Selected(state, trace, previews)


def resume(stepper: Stepper, job: EditJob, trace: FilterTrace) -> EditState:
    """The state that `select` returned for the chosen candidate, bit for bit, without judge and other candidates.

    `job` has the chosen seed. Rounding depends on the shapes of a batch, so the steps that the candidate took next to
    others are repeated next to copies of itself, in the place that it had.
    """
    state = stepper.prepare(job)
    if not STRATEGIES[trace.strategy].restarts:
        for look in trace.looks:
            place = look.alive.index(trace.chosen)
            batch = [state if i == place else replace(state) for i in range(len(look.alive))]
            stepper.advance(batch, look.steps)
    state.nfe = trace.nfe
    return state


def _candidate_trace(candidate: _Candidate, preview: Image.Image) -> FilterCandidate:
    score = candidate.score
    return FilterCandidate(
        seed=candidate.state.job.seed,
        steps=candidate.steps,
        score=None if score is None else score.overall,
        error=None if score is None else score.error,
        preview_sha256=image_sha256(preview),
    )
