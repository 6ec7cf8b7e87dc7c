"""A worker by itself: it stops when its claim is lost, takes up what is left of a job, and gives back what it holds."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from careedit.errors import ExpertError, InputError
from careedit.records import EarlyFilter, EditRequest, EditTrace
from careedit_deployments.config import JobsConfig, ServeConfig, StateConfig
from careedit_deployments.edits.backend import EditOrder
from careedit_deployments.edits.codecs import Codecs
from careedit_deployments.edits.edit_service import EditService
from careedit_deployments.edits.output import Output
from careedit_deployments.edits.stored import keep_order, scope_of
from careedit_deployments.errors import (
    DeadlineError,
    NotFoundError,
    OverloadedError,
    ScorerUnavailableError,
    ServingError,
    TooExpensiveError,
    UnavailableError,
)
from careedit_deployments.jobs.background import count_job
from careedit_deployments.jobs.cleanup import FEW, HOLD_S, Cleanup
from careedit_deployments.jobs.worker import JobWorker
from careedit_deployments.jobs.workers import Pool
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.records import JobRecord, new_id
from careedit_deployments.state.store import Store, open_store
from careedit_deployments.telemetry.metrics import Metrics, Recording
from fake_backend import FakeBackend
from state_records import NOON, Clock, a_session, an_edit

LEASE_S = 10.0
EDIT_S = 30 * 24 * 3600.0

pytestmark = pytest.mark.anyio


class Bench:
    """A store, pictures, a painter, and workers on them."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.blobs, self.painter = store, BlobStore(str(folder / "blobs")), FakeBackend()
        config = ServeConfig(arms={"tiny": {"expert_set": "tiny"}})
        self.recording = Recording()
        self.metrics = Metrics(self.recording)
        self.edits = EditService(config, self.painter, self.metrics, store.edits)
        store.jobs.watch(partial(count_job, self.metrics))

    def worker(self, name: str, **config: Any) -> JobWorker:
        settings = JobsConfig(lease_s=LEASE_S, **config)
        return JobWorker(name, self.edits, self.store, self.blobs, Codecs(), settings, pause_s=0.001)

    async def queue(self, **request: Any) -> JobRecord:
        picture = Image.new("RGB", (16, 16), (9, 9, 9))
        wanted = EditRequest(**{"image": picture, "instruction": "x", "seed": 5, "steps": 2, **request})
        job_id = new_id("job")
        put = partial(self.blobs.put, scope_of(job_id))
        stored = await keep_order(EditOrder(request=wanted), Output(size=(16, 16)), put)
        job = JobRecord(id=job_id, body_sha256="a" * 64, order=stored.model_dump(mode="json"), created=NOON)
        return await self.store.jobs.add(job)

    async def kinds(self, job: JobRecord) -> list[str]:
        return [event.kind for event in await self.store.jobs.events(job.id)]


@pytest.fixture
async def bench(state: StateConfig, clock: Clock, tmp_path: Path) -> AsyncIterator[Bench]:
    store = await open_store(state.model_copy(update={"edit_ttl_s": EDIT_S}), clock=clock)
    yield Bench(store, tmp_path)
    await store.close()


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.005)


async def test_a_worker_that_was_thought_dead_stops_and_changes_nothing(bench: Bench, clock: Clock) -> None:
    await bench.queue(steps=200)
    bench.painter.pause = 0.02
    slow, quick = bench.worker("slow"), bench.worker("quick")
    held = await slow.claim()
    working = asyncio.create_task(slow.work(held))
    await until(lambda: bench.painter.steps > 2)
    clock.now += LEASE_S + 1
    taken = await bench.store.jobs.claim("quick", lease_s=LEASE_S, attempts=3)
    assert taken.id == held.id
    await working
    assert bench.painter.closed == 1, "it stopped long before its 200 steps"
    assert bench.painter.steps < 200
    assert (await bench.store.jobs.get(held.id)).status == "running"
    bench.painter.pause = 0.0
    await quick.work(taken)
    ended = await bench.store.jobs.get(held.id)
    assert (ended.status, ended.worker, ended.attempt) == ("completed", "quick", 2)
    assert (await bench.kinds(held)).count("completed") == 1


async def test_images_that_were_made_before_a_worker_died_are_not_made_again(bench: Bench, clock: Clock) -> None:
    job = await bench.queue(n=3, steps=50)
    worker = bench.worker("first")
    bench.painter.pause = 0.002
    dying = asyncio.create_task(worker.work(await worker.claim()))
    while not (made := (await bench.store.jobs.get(job.id)).images):
        await asyncio.sleep(0.01)
    bench.store.jobs.release = _fails  # it dies instead of giving the job back
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    clock.now += LEASE_S + 1
    other = bench.worker("second")
    await other.work(await other.claim())
    ended = await bench.store.jobs.get(job.id)
    assert [image.trace["seed"] for image in ended.images] == [5, 6, 7]
    assert ended.images[0].edit_id == made[0].edit_id != ended.images[2].edit_id
    again = bench.painter.calls[-1].request
    assert (again.n, again.seed) == (3 - len(made), 5 + len(made))


async def test_the_trace_that_is_kept_of_a_jobs_image_is_a_whole_one(bench: Bench) -> None:
    job, worker = await bench.queue(), bench.worker("w")
    await worker.work(await worker.claim())
    (image,) = (await bench.store.jobs.get(job.id)).images
    assert image.trace["guidance"] is None
    assert EditTrace(**image.trace).seed == 5


@pytest.mark.parametrize(
    ("fails", "event"), [(None, "finished"), (InputError("Odd."), "failed"), (OverloadedError("Full.", 9e9), "failed")]
)
async def test_a_job_is_counted_at_each_step_of_its_life(
    bench: Bench, clock: Clock, fails: Exception | None, event: str
) -> None:
    bench.painter.fails = fails
    await bench.queue()
    assert await bench.store.jobs.waiting() == 1
    worker = bench.worker("w")
    job = await worker.claim()
    assert await bench.store.jobs.waiting() == 0
    clock.now += 3
    await worker.work(job)
    assert counted(bench.recording) == {"queued": 1, "begun": 1, event: 1}
    assert bench.recording.values["careedit_job_seconds"] == {(("event", event),): [3.0]}


async def test_jobs_that_no_worker_ends_are_counted_too(bench: Bench, clock: Clock) -> None:
    cancelled = await bench.queue()
    for _ in range(2):
        await bench.store.jobs.cancel(cancelled.id)
    await bench.queue()
    for name in ("first", "second", "third"):
        found = await bench.worker(name, attempts=2).claim()
        clock.now += LEASE_S + 1
    assert found is None
    assert counted(bench.recording) == {"queued": 2, "cancelled": 1, "begun": 1, "retaken": 1, "failed": 1}


def counted(recording: Recording) -> dict[str, float]:
    return {dict(key)["event"]: sum(values) for key, values in recording.values["careedit_jobs"].items()}


async def _fails(job: JobRecord) -> bool:
    raise RuntimeError("the process is gone")


async def test_a_worker_that_shuts_down_gives_its_job_back(bench: Bench) -> None:
    job = await bench.queue(steps=200)
    bench.painter.pause = 0.02
    worker = bench.worker("leaving")
    pool = Pool(worker.claim, worker.work, lambda: bench.store.jobs.subscribe("queued"), places=1, poll_s=0.01)
    running = asyncio.create_task(pool.run())
    await until(lambda: bench.painter.steps > 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await pool.drain(0.0)
    given = await bench.store.jobs.get(job.id)
    assert (given.status, given.attempt, given.worker) == ("queued", 0, None)
    assert (await bench.kinds(job))[-1] == "requeued"
    assert bench.painter.closed == 1


async def test_what_is_claimed_while_its_worker_shuts_down_is_given_back_too(bench: Bench) -> None:
    job = await bench.queue(steps=200)
    bench.painter.pause = 0.02
    worker, claiming = bench.worker("leaving"), asyncio.Event()

    async def claim() -> JobRecord | None:
        claiming.set()
        return await worker.claim()

    pool = Pool(claim, worker.work, lambda: bench.store.jobs.subscribe("queued"), places=1, poll_s=0.01)
    running = asyncio.create_task(pool.run())
    await claiming.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await bench.store.jobs.get(job.id)).status == "running"
    await pool.drain(0.0)
    assert (await bench.store.jobs.get(job.id)).status == "queued"


async def test_an_early_filter_is_refused_with_its_reason_where_there_is_no_judge(bench: Bench) -> None:
    job = await bench.queue(early_filter=EarlyFilter())
    worker = bench.worker("w")
    await worker.work(await worker.claim())
    ended = await bench.store.jobs.get(job.id)
    assert (ended.status, ended.error["code"]) == ("failed", "invalid_value")
    assert "judge" in ended.error["message"]


async def test_a_picture_that_is_gone_fails_the_job(bench: Bench) -> None:
    job = await bench.queue()
    await bench.blobs.delete_scope(scope_of(job.id))
    worker = bench.worker("w")
    await worker.work(await worker.claim())
    ended = await bench.store.jobs.get(job.id)
    assert (ended.status, ended.error["code"]) == ("failed", "not_found")


TROUBLES = [
    UnavailableError("The router could not be started."),
    ScorerUnavailableError("The judge does not answer."),
    OverloadedError("The expert's queue is full.", 0.001),
]
# An edit that crashes every replica must not hold a worker for as long as the platform may be away.
UNFORESEEN = [ServingError("The expert failed (OutOfMemoryError)."), ExpertError("Unreadable."), RuntimeError("odd")]


CASES = [(place, trouble, 8) for place in ("start", "edit") for trouble in TROUBLES]
CASES += [(place, trouble, 1) for place in ("start", "edit") for trouble in UNFORESEEN]
CASES += [(place, TROUBLES[0], 8) for place in ("put", "get", "append", "finish")]


@pytest.mark.parametrize(
    ("place", "trouble", "times"), CASES, ids=[f"{place}-{type(one).__name__}" for place, one, _ in CASES]
)
async def test_a_job_outlives_the_platforms_faults_with_its_seed_and_ends_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, place: str, trouble: Exception, times: int
) -> None:
    job = await bench.queue(n=2)
    owners = {"start": bench.edits, "edit": bench.painter, "put": bench.blobs, "get": bench.blobs}
    owner, left = owners.get(place, bench.store.jobs), times

    def broken(real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left >= 0:
                raise trouble
            return real(*args, **options)

        return call

    monkeypatch.setattr(owner, place, broken(getattr(owner, place)))
    worker = bench.worker("w", attempts=2)
    await worker.work(await worker.claim())
    ended = await bench.store.jobs.get(job.id)
    assert left < 0
    assert (ended.status, ended.attempt) == ("completed", 1)
    assert [image.trace["seed"] for image in ended.images] == [5, 6]
    assert (await bench.kinds(job)).count("completed") == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (InputError("The mask is empty."), "invalid_value"),
        (TooExpensiveError("Too much."), "too_expensive"),
        (NotFoundError("There is no model 'x'.", field="model"), "model_not_found"),
    ],
)
async def test_a_job_fails_at_once_by_a_fault_of_its_own(bench: Bench, fault: Exception, code: str) -> None:
    bench.painter.fails = fault
    job, worker = await bench.queue(), bench.worker("w")
    await worker.work(await worker.claim())
    ended = await bench.store.jobs.get(job.id)
    assert (ended.status, ended.error["code"], len(bench.painter.calls)) == ("failed", code, 1)


async def test_a_deadline_is_tried_again_but_not_for_ever(bench: Bench) -> None:
    bench.painter.fails = DeadlineError("Too late.")
    job, worker = await bench.queue(), bench.worker("w", attempts=3)
    await worker.work(await worker.claim())
    ended = await bench.store.jobs.get(job.id)
    assert (ended.error["code"], len(bench.painter.calls)) == ("deadline_exceeded", 3)


async def test_the_platforms_fault_fails_a_job_only_when_patience_is_over(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.painter.fails = UnavailableError("The router is away.")
    job, worker = await bench.queue(), bench.worker("w", patience_s=0.2)
    begun = time.monotonic()
    await worker.work(await worker.claim())
    assert 0.1 < time.monotonic() - begun < 5
    ended = await bench.store.jobs.get(job.id)
    assert (ended.status, ended.error["code"]) == ("failed", "unavailable")
    pauses = [float(one) for one in re.findall(r"again in (\S+) seconds", caplog.text)]
    assert len(bench.painter.calls) == len(pauses) + 1 > 1
    assert pauses == [0.001 * 2**i for i in range(len(pauses))]


async def test_a_job_that_waits_for_a_platform_that_stops_is_given_back(bench: Bench) -> None:
    bench.painter.fails = UnavailableError("The router could not be started.")
    jobs, worker = [await bench.queue() for _ in range(3)], bench.worker("leaving")
    pool = Pool(worker.claim, worker.work, lambda: bench.store.jobs.subscribe("queued"), places=2, poll_s=0.01)
    running = asyncio.create_task(pool.run())
    await until(lambda: len(bench.painter.calls) > 6)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await pool.drain(0.0)
    kept = [await bench.store.jobs.get(job.id) for job in jobs]
    assert [(job.status, job.attempt) for job in kept] == [("queued", 0)] * 3
    assert (await bench.kinds(jobs[2])) == ["queued"], "only as many are claimed as can wait"


async def test_the_sweeper_deletes_what_has_expired_and_what_belongs_to_nobody(
    bench: Bench, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "careedit_deployments.jobs.cleanup")
    gone, stays = await bench.queue(), await bench.queue()
    await bench.store.edits.add(an_edit(request_id=gone.id, instruction="a secret"))
    await bench.store.jobs.cancel(gone.id)
    session = a_session(id=f"session_{int(NOON * 1000):012x}{'0' * 20}")
    await bench.store.sessions.add(session)
    for scope in (f"sessions/{session.id}", f"jobs/job_{1:012x}{'0' * 20}", f"jobs/job_{int(1e15):012x}{'0' * 20}"):
        await bench.blobs.put(scope, b"picture", suffix="png")
    cleanup = Cleanup(bench.store, bench.blobs, bench.metrics, clock=clock)
    assert await cleanup.run_once() == 1, "the orphan that is old; the young one may be about to get its row"
    clock.now += 8 * 24 * 3600
    assert await cleanup.run_once() == 2
    assert bench.recording.total("careedit_sessions", event="expired") == 1
    assert await bench.blobs.scopes("sessions") == []
    left = await bench.blobs.scopes("jobs")
    assert scope_of(gone.id) not in left
    assert scope_of(stays.id) in left, "it was never worked on, so it does not expire"
    assert [edit.instruction for edit in await bench.store.edits.latest()] == [None]
    clock.now += 23 * 24 * 3600
    assert await cleanup.run_once() == 1, "the edit in the log, whose time has come too"
    assert await bench.store.edits.latest() == []
    report = (await bench.store.audit.latest(limit=1))[0].detail
    assert {kind: count for kind, count in report.items() if count} == {"edits": 1}
    assert bench.recording.total("careedit_swept", kind="edits") == 1
    assert caplog.messages[-1] == "The cleanup deleted 1 edits."
    swept = (await bench.store.retention.report()).swept
    assert (swept["edits"], swept["jobs"]) == (1, 0)


async def test_a_wrong_time_does_not_delete_what_is_stored_and_a_right_one_does_after_an_hour(
    bench: Bench, clock: Clock
) -> None:
    elapsed, warnings = Clock(), {}
    cleanup = Cleanup(
        bench.store,
        bench.blobs,
        bench.metrics,
        warnings=warnings,
        clock=clock,
        elapsed=elapsed,
    )
    for number in range(FEW + 1):
        await bench.store.sessions.add(a_session())
        await bench.store.edits.add(an_edit(created=NOON - EDIT_S + 3600))
        await bench.blobs.put(f"jobs/job_{number + 1:012x}{'0' * 20}", b"an orphan", suffix="png")
    clock.now += 8 * 24 * 3600
    assert await cleanup.run_once() == 0
    assert set(warnings) == {"cleanup of sessions", "cleanup of edits", "cleanup of pictures"}
    assert "21 of 21 sessions have expired at once" in warnings["cleanup of sessions"]
    assert bench.recording.values["careedit_held_deletions"][()][-1] == 3 * (FEW + 1)
    clock.now -= 8 * 24 * 3600
    assert await cleanup.run_once() == 0
    assert set(warnings) == {"cleanup of pictures"}, "the time is right again, but the pictures have no rows"
    elapsed.now, clock.now = elapsed.now + HOLD_S, clock.now + HOLD_S + 1
    assert await cleanup.run_once() == FEW + 1, "the pictures, as an hour has passed; all the rest has just expired"
    assert set(warnings) == {"cleanup of sessions", "cleanup of edits"}
    elapsed.now += HOLD_S
    assert await cleanup.run_once() == 2 * (FEW + 1)
    assert warnings == {} and bench.recording.values["careedit_held_deletions"][()][-1] == 0
