"""A scheduler around the untrained editor's engine, and calls for it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from careedit.editing import EditJob
from careedit.records import EditRequest, RoutingDecision
from careedit.scoring import JudgeIdentity, Score
from careedit_deployments.edits.backend import EditCall
from careedit_deployments.replica.edit import EditRunner
from careedit_deployments.replica.scheduler import StepScheduler

BATCH = 4


@pytest.fixture
def editor(open_editor):
    made = open_editor("shared")
    yield made
    made.judge = None


@pytest.fixture
def scheduler(editor):
    made = StepScheduler(editor.engine, batch=BATCH, threads=1)
    yield made
    made.close(timeout=10)


@pytest.fixture
def job(draw_picture):
    def make(seed: int = 0, steps: int = 3, expert: str = "base", reference: bool = False) -> EditJob:
        return EditJob(
            source=draw_picture(seed=seed),
            instruction="remove the red circle",
            seed=seed,
            steps=steps,
            references=(draw_picture(seed=9),) if reference else (),
            weights={expert: 1.0},
        )

    return make


@pytest.fixture
def runner(editor, scheduler):
    def make(scorer=None) -> EditRunner:
        return EditRunner(editor, scheduler, scorer=scorer, workers=4)

    return make


@pytest.fixture
def call(editor, draw_picture):
    """`call(seed=0, steps=4, partials=0, candidates=False, seconds=60, progress=True, **request)`: a routed edit."""

    def make(
        seed: int = 0,
        partials: int = 0,
        candidates: bool = False,
        seconds: float = 60,
        progress: bool = True,
        **fields,
    ) -> EditCall:
        request = EditRequest(
            image=draw_picture((96, 64), seed=seed),
            seed=seed,
            **{"instruction": "remove the red circle", "steps": 4, **fields},
        )
        return EditCall(
            id=f"edit-{seed}",
            arm="a",
            request=request,
            decision=editor.route(request),
            partials=partials,
            candidates=candidates,
            progress=progress,
            deadline_s=seconds,
        )

    return make


@pytest.fixture
def events():
    """`events(runner, *calls)`: every call's events, the calls made at once."""

    async def gather(runner, calls):
        async def one(call):
            async with aclosing(runner.stream(call)) as stream:
                return [event async for event in stream]

        return await asyncio.gather(*(one(call) for call in calls))

    return lambda runner, *calls: asyncio.run(gather(runner, calls))


@pytest.fixture
def scripted():
    """`scripted([0.1, 0.9])`: a scorer that gives these scores when it is asked, or raises what it was given."""
    identity = JudgeIdentity(backend="test", model="scripted", revision="1", prompts="none-1")

    class Scripted:
        def __init__(self, answer):
            self.answer, self.identity = answer, identity

        def score(self, requests):
            if isinstance(self.answer, Exception):
                raise self.answer
            return [Score(followed=x, preserved=1.0, clean=1.0, overall=x, judge=identity) for x in self.answer]

    return Scripted


@pytest.fixture
def decide():
    """`decide(erase=0.5, style=0.5)`: a decision for these weights."""
    return lambda **weights: RoutingDecision(weights=weights, router="fixed", reason="a test asked for it")
