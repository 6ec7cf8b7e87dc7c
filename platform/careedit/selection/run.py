"""The early filter at work: candidates are stepped in one batch, looked at, dropped; one state goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image

from careedit.editing import EditJob, EditState, Engine
from careedit.errors import InputError
from careedit.images import image_sha256
from careedit.records import FilterCandidate, FilterTrace
from careedit.scoring import Score
from careedit.selection.judging import Judge
from careedit.selection.plan import STRATEGIES
from careedit.selection.race import race
from careedit.selection.slot import Slot


@dataclass(frozen=True, eq=False)
class Selected:
    """The outcome of an early filter."""

    state: EditState
    """The winner's, from where it goes on; its `nfe` counts every candidate's evaluations."""
    trace: FilterTrace
    """What was seen and chosen."""
    previews: tuple[Image.Image, ...]
    """Each candidate's last preview, as the judge saw it."""


@dataclass(eq=False)
class _Candidate:
    """One noise in the race."""

    state: EditState
    preview: Image.Image | None = None
    steps: int = 0
    score: Score | None = None


def select(
    engine: Engine, slot: Slot, judge: Judge | None, stepped: Callable[[int], None] = lambda _: None
) -> Selected:
    """Try the slot's seeds by its plan and return the state of the best, ready to be stepped to the end.

    `stepped` is told after each step how many candidates took it, and may raise to abandon the edit. The caller leases
    the experts. Of a candidate only the noise is its own: the encodings come from the engine's cache. Raises
    `InputError` where there is no judge.
    """
    plan, wanted = slot.plan, slot.request.early_filter
    if judge is None or wanted is None:
        raise InputError(
            "An early filter needs a judge; give the editor a scorer or leave early_filter out.", field="early_filter"
        )
    field = [_Candidate(engine.prepare(replace(slot.job, seed=seed, steps=plan.schedule))) for seed in slot.seeds]
    waited = 0.0

    def scores_at(steps: int, alive: tuple[int, ...]) -> list[float | None]:
        nonlocal waited
        ahead = [field[i] for i in alive]
        states = [candidate.state for candidate in ahead]
        for _ in range(steps - states[0].index):
            engine.step(states)
            stepped(len(states))
        pictures = [slot.preview(panel) for panel in engine.preview_many(states)]
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
    state = engine.prepare(replace(slot.job, seed=winner.job.seed)) if plan.restarts else winner
    state.nfe = spent
    previews = tuple(candidate.preview for candidate in field if candidate.preview is not None)
    trace = FilterTrace(
        strategy=wanted.strategy,
        preview_steps=plan.preview_steps,
        candidates=tuple(_told(*pair) for pair in zip(field, previews, strict=True)),
        looks=run.looks,
        chosen=run.chosen,
        exited_early=run.exited_early,
        nfe=spent,
        judge=judge.identity,
        judge_seconds=waited,
        degraded=run.degraded,
    )
    return Selected(state, trace, previews)


def resume(engine: Engine, job: EditJob, trace: FilterTrace) -> EditState:
    """The state that `select` returned for the chosen candidate, bit for bit, without judge and other candidates.

    `job` has the chosen seed. Rounding depends on the shapes of a batch, so the steps that the candidate took beside
    others are taken beside copies of itself, in the place that it had.
    """
    state = engine.prepare(job)
    if not STRATEGIES[trace.strategy].restarts:
        for look in trace.looks:
            place = look.alive.index(trace.chosen)
            batch = [state if i == place else replace(state) for i in range(len(look.alive))]
            for _ in range(look.steps - state.index):
                engine.step(batch)
    state.nfe = trace.nfe
    return state


def _told(candidate: _Candidate, preview: Image.Image) -> FilterCandidate:
    score = candidate.score
    return FilterCandidate(
        seed=candidate.state.job.seed,
        steps=candidate.steps,
        score=None if score is None else score.overall,
        error=None if score is None else score.error,
        preview_sha256=image_sha256(preview),
    )
