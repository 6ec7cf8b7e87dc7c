"""The backend over handles, with handles that fail as Ray's do: new attempts, nothing told twice, errors as they were."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from PIL import Image
from ray.exceptions import ActorDiedError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, RequestCancelledError

from careedit.errors import CancelledError, InputError
from careedit.records import EditRequest
from careedit.routing import RoutingFeatures
from careedit_deployments.cluster.fleet import ArmFleet, Fleet
from careedit_deployments.cluster.ray_backend import RayBackend
from careedit_deployments.edits import liveness
from careedit_deployments.edits.backend import ArmInfo, EditCall, Preview, Progress
from careedit_deployments.edits.liveness import Pulse
from careedit_deployments.errors import (
    DeadlineError,
    OverloadedError,
    ScorerUnavailableError,
    ServingError,
    UnavailableError,
)
from careedit_deployments.telemetry.metrics import Metrics, Recording

PICTURE = Image.new("RGB", (8, 8))
EVENTS = [
    Progress(image=0, done=1, total=2),
    Preview(image=0, index=0, picture=PICTURE),
    Progress(image=0, done=2, total=2),
]


class Stream:
    def __init__(self, script):
        self.script, self.cancelled = list(script), False

    async def __anext__(self):
        await asyncio.sleep(0)
        if not self.script:
            raise StopAsyncIteration
        step = self.script.pop(0)
        if isinstance(step, BaseException):
            raise step
        if step == "hang":
            await asyncio.sleep(60)
        return step

    def __aiter__(self):
        return self

    def cancel(self):
        self.cancelled = True


class Handle:
    """Gives each call the next script; a list is streamed, anything else is the answer."""

    def __init__(self, *scripts):
        self.scripts, self.calls, self.streams = list(scripts), [], []
        self.edit = self.route = self.score = self

    def options(self, **_):
        return self

    def remote(self, *args):
        self.calls.append(args)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        if isinstance(script, list):
            self.streams.append(Stream(script))
            return self.streams[-1]

        async def answer():
            if isinstance(script, BaseException):
                raise script
            return script

        return answer()


@pytest.fixture
def fleet():
    info = ArmInfo(
        name="main",
        expert_set="s",
        version="1",
        sha256="0" * 64,
        experts={"erase": {"name": "erase", "competence": "erase"}},
        steps=2,
        guidance=None,
        top_k=1,
        panel=64,
        takes_guidance=False,
        shadow=False,
    )
    max_in_flight = {"expert-main-erase": 2, "shared-main": 2}
    arm = ArmFleet(info=info, needs_pixels=False, own=("erase",), shared=True, max_in_flight=max_in_flight)
    return Fleet(arms={"main": arm}, scorer=True)


@pytest.fixture
def call(decide):
    def make(seconds=30.0):
        request = EditRequest(image=PICTURE, instruction="remove it", seed=1)
        return EditCall(id="e", arm="main", request=request, decision=decide(erase=1.0), deadline_s=seconds)

    return make


@pytest.fixture
def run(fleet):
    def get(handle, call, metrics=None):
        async def collect():
            async with aclosing(RayBackend(fleet, lambda _: handle, metrics=metrics).edit(call)) as stream:
                return [event async for event in stream]

        return asyncio.run(collect())

    return get


def task_error(cause):
    return RayTaskError("edit", "Traceback (most recent call last) ...", cause).as_instanceof_cause()


BROKEN = AioRpcError(StatusCode.INTERNAL, Metadata(), Metadata(), "The stream was reset.")


@pytest.mark.parametrize("loss", [ActorDiedError(), BROKEN])
def test_a_dead_replica_is_a_new_attempt_and_nothing_is_told_twice(loss, run, call):
    recording = Recording()
    handle = Handle([*EVENTS[:2], loss], EVENTS)
    wanted = call()
    assert run(handle, wanted, Metrics(recording)) == EVENTS
    first, second = (sent for (sent,) in handle.calls)
    assert first.request == second.request == wanted.request
    assert wanted.deadline_s > first.deadline_s > second.deadline_s
    assert recording.total("careedit_retries", arm="main", expert="erase") == 1


def test_a_stream_that_ended_is_not_cancelled_and_one_that_is_left_is(run, fleet, call):
    handle = Handle(EVENTS)
    assert run(handle, call()) == EVENTS
    assert not handle.streams[0].cancelled

    async def leave():
        async with aclosing(RayBackend(fleet, lambda _: handle).edit(call())) as stream:
            return await anext(stream)

    assert asyncio.run(leave()) == EVENTS[0]
    assert handle.streams[1].cancelled


def test_a_replica_that_says_it_is_ill_is_tried_again_but_not_for_ever(run, call):
    ill = UnavailableError("The scheduler is closed; send the edit to another replica.")
    assert run(Handle([task_error(ill)], EVENTS), call()) == EVENTS
    handle = Handle([task_error(ill)])
    with pytest.raises(UnavailableError, match="scheduler is closed"):
        run(handle, call())
    assert len(handle.calls) == 6


def test_attempts_end_at_the_deadline(run, call):
    handle = Handle([ActorDiedError()])
    with pytest.raises(DeadlineError):
        run(handle, call(seconds=0.3))
    assert len(handle.calls) >= 2


def test_a_replica_that_says_nothing_is_given_up_at_the_deadline_and_told_to_stop(run, call):
    handle = Handle([EVENTS[0], "hang"])
    with pytest.raises(DeadlineError):
        run(handle, call(seconds=0.2))
    assert handle.streams[0].cancelled


def test_a_full_queue_is_told_at_once(run, call):
    handle = Handle([BackPressureError(1, 2)])
    with pytest.raises(OverloadedError, match="full; try again") as refused:
        run(handle, call())
    assert len(handle.calls) == 1 and refused.value.retry_after == 1.0


def test_no_more_are_let_in_than_replicas_hold_and_may_wait_however_fast_they_come(fleet, call):
    handle = Handle(["hang"])

    async def crowd():
        backend = RayBackend(fleet, lambda _: handle)
        edits = [asyncio.ensure_future(anext(backend.edit(call(seconds=0.2)))) for _ in range(5)]
        return await asyncio.gather(*edits, return_exceptions=True)

    ends = asyncio.run(crowd())
    assert [type(end) for end in ends] == [DeadlineError] * 2 + [OverloadedError] * 3
    assert len(handle.calls) == 2


def test_an_edit_that_was_accepted_is_not_refused_after_its_replica_died(run, call):
    handle = Handle([EVENTS[0], ActorDiedError()], [BackPressureError(1, 2)], EVENTS)
    assert run(handle, call()) == EVENTS
    assert len(handle.calls) == 3


@pytest.mark.parametrize(
    ("cause", "kind", "text"),
    [
        (InputError("The seed is odd; give another."), InputError, "^The seed is odd; give another.$"),
        (RuntimeError("CUDA error: a secret"), ServingError, r"failed \(RuntimeError\); the replica's log"),
    ],
)
def test_careedits_own_errors_come_out_as_they_were_and_others_tell_no_secrets(cause, kind, text, run, call):
    with pytest.raises(kind, match=text) as caught:
        run(Handle([task_error(cause)]), call())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("error", [TaskCancelledError(), RequestCancelledError()])
def test_a_call_that_ray_cancelled_is_a_client_that_left_and_not_an_unforeseen_error(error, run, call):
    with pytest.raises(CancelledError, match="its client left"):
        run(Handle([error]), call())


def test_whoever_leaves_cancels_the_replicas_edit(fleet, call):
    handle = Handle(EVENTS)

    async def leave():
        async with aclosing(RayBackend(fleet, lambda _: handle).edit(call())) as stream:
            return await anext(stream)

    assert asyncio.run(leave()) == EVENTS[0]
    assert handle.streams[0].cancelled


def test_a_router_that_needs_no_pixels_is_sent_none(fleet, decide):
    handle = Handle(ActorDiedError(), decide(erase=1.0))
    features = RoutingFeatures("make it like this", source=PICTURE, references=(PICTURE,))
    decision = asyncio.run(RayBackend(fleet, lambda _: handle).route("main", features, top_k=1))
    assert decision.weights == {"erase": 1.0}
    sent, top_k = handle.calls[-1]
    assert (sent.source, sent.has_reference, sent.references[0].size, top_k) == (None, True, (1, 1), 1)


@pytest.mark.parametrize("failure", [task_error(RuntimeError("boom")), RuntimeError])
def test_a_judge_that_fails_is_not_available(failure, fleet):
    silent = fleet.model_copy(update={"scorer": False})
    if failure is RuntimeError:
        with pytest.raises(ScorerUnavailableError, match="has no judge"):
            asyncio.run(RayBackend(silent, lambda _: Handle([])).score([]))
        return
    with pytest.raises(ScorerUnavailableError, match=r"The judge failed \(RuntimeError\)"):
        asyncio.run(RayBackend(fleet, lambda _: Handle(failure)).score([]))


def test_another_fleet_is_served_from_the_next_call_on(fleet, call, decide):
    backend = RayBackend(fleet, lambda _: Handle(EVENTS))
    renamed = fleet.model_copy(update={"arms": {"other": fleet.arms["main"]}})
    backend.change(renamed)
    assert set(backend.arms) == {"other"}
    with pytest.raises(InputError, match="the arms are other"):
        asyncio.run(backend.route("main", RoutingFeatures("x"), top_k=1))


def hung_backend(fleet, *scripts, hang_s=0.05):
    killed = []
    handle = Handle(*scripts)
    backend = RayBackend(fleet, lambda _: handle, hang_s=hang_s, kill=killed.append)
    return backend, handle, killed


@pytest.fixture
def quick(monkeypatch):
    """Pulses come every 10 ms."""
    monkeypatch.setattr(liveness, "PULSE_S", 0.01)
    monkeypatch.setattr(liveness.paced, "__defaults__", (0.01,))


SILENT = [Pulse(replica="A"), EVENTS[0], "hang"]
STUCK = [Pulse(replica="A"), EVENTS[0], *(Pulse(replica="A", busy_s=0.02 * i) for i in range(9))]


@pytest.mark.parametrize("script", [SILENT, STUCK])
def test_a_replica_without_a_sign_of_life_is_killed_and_its_edit_begins_elsewhere(script, quick, fleet, call):
    backend, handle, killed = hung_backend(fleet, script, [Pulse(replica="B"), *EVENTS])

    async def collect():
        async with aclosing(backend.edit(call())) as stream:
            return [event async for event in stream]

    assert asyncio.run(collect()) == EVENTS
    assert killed == ["A"] and handle.streams[0].cancelled
    assert backend._hanging() == {}, "another replica edits"


def test_a_hung_replica_is_reported_until_another_one_edits(quick, fleet, call):
    backend, _, killed = hung_backend(fleet, SILENT, ["hang"])
    with pytest.raises(DeadlineError):
        asyncio.run(anext(aiter_after(backend.edit(call(seconds=0.4)))))
    assert killed == ["A"]
    assert backend._hanging() == {
        "expert-main-erase": "A replica of the expert erase of main hangs and is being replaced."
    }


async def aiter_after(events):
    """What comes after the first event."""
    async with aclosing(events):
        await anext(events)
        async for event in events:
            yield event


def test_waiting_for_a_replica_and_slow_steps_are_not_hanging(quick, fleet, call):
    slow = [Pulse(replica="A", step_s=1.0, busy_s=0.3)] * 3
    for script in (["hang"], [Pulse(replica="A", step_s=1.0), "hang"], [*slow, "hang"]):
        backend, _, killed = hung_backend(fleet, script)
        with pytest.raises(DeadlineError):
            asyncio.run(anext(backend.edit(call(seconds=0.3))))
        assert killed == []
