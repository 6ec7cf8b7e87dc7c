"""The encoder deployment without Ray: the same edits, prompts encoded once, and calls that are made again or given up."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from contextlib import contextmanager

import pytest
import torch
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.exceptions import BackPressureError

from careedit.editing import Prompt, load_base
from careedit.errors import CancelledError, ExpertError
from careedit.experts import load_expert_set
from careedit_deployments.cluster.fleet import encoder_name
from careedit_deployments.encoder import replica as encoder_replica
from careedit_deployments.encoder.client import EncoderLink, RemoteEncoder
from careedit_deployments.encoder.identity import base_key
from careedit_deployments.encoder.replica import EncoderReplica
from careedit_deployments.errors import DeadlineError, UnavailableError
from careedit_deployments.replica.choice import ExpertSettings, SetChoice
from careedit_deployments.replica.live import LiveSet
from careedit_deployments.telemetry.metrics import Metrics, Recording

FIELDS = {"device": "cpu", "dtype": None, "threads": 1, "batch": 1, "cache_bytes": 2**20, "check_seconds": 10.0}


class Handle:
    """A handle of one replica in this process; each of `failures` is raised by one call first."""

    def __init__(self, replica, *failures):
        self.replica, self.failures, self.encode = replica, list(failures), self
        self.called, self.cancelled = threading.Event(), threading.Semaphore(0)

    def remote(self, *inputs):
        self.called.set()
        return self._Response(self, inputs)

    class _Response:
        def __init__(self, handle, inputs):
            self.handle, self.inputs = handle, inputs

        def __await__(self):
            if self.handle.failures:
                raise self.handle.failures.pop(0)
            return self.handle.replica.encode(*self.inputs).__await__()

        def cancel(self):
            self.handle.cancelled.release()


@pytest.fixture
def loop():
    """A running event loop, as a replica has one."""
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


@pytest.fixture
def encoder(untrained_set, loop):
    """`encoder(**settings)`: a replica with the base of the untrained set, and its metrics."""

    def make(**settings):
        metrics = Recording()
        replica = EncoderReplica({**FIELDS, **settings}, {}, metrics)
        choice = {"expert_set": str(untrained_set), "base": base_key(load_expert_set(untrained_set))}
        asyncio.run_coroutine_threadsafe(replica.reconfigure(choice), loop).result(60)
        return replica, metrics

    return make


@pytest.fixture
def live(untrained_set, loop):
    """`live(handle, expert=None)`: a live set whose prompts `handle` encodes, and the metrics of its calls."""

    @contextmanager
    def make(handle, expert=None):
        settings = ExpertSettings(
            arm="main", expert=expert, batch=4, threads=1, device="cpu", workers=2, check_seconds=10.0,
            encoder=encoder_name("main"),
        )  # fmt: skip
        choice = SetChoice(expert_set=str(untrained_set), sha256=load_expert_set(untrained_set).sha256)
        metrics = Recording()
        made = LiveSet(settings, choice, encoder=EncoderLink(handle, loop, Metrics(metrics)))
        try:
            yield made, metrics
        finally:
            made.retire()

    return make


def test_an_edit_with_an_encoder_equals_an_edit_without_and_its_trace_replays(encoder, live, call, events, open_editor):
    replica, metrics = encoder()
    with live(Handle(replica), expert="erase") as (edits, _):
        assert edits.editor.engine.base.text_encoder is None and edits.editor.engine.base.text_encoder_2 is None
        made = [events(edits, call(seed=seed, instruction="remove the star"))[0][-1] for seed in (3, 4)]
    editor = open_editor("merged")
    for one, seed in zip(made, (3, 4), strict=True):
        request = call(seed=seed, instruction="remove the star").request
        assert one.picture.tobytes() == editor.edit(request).image.tobytes()
        assert one.trace.degradations == ()
        assert editor.replay(one.trace, image=request.image).image.tobytes() == one.picture.tobytes()
    # The test step's prompt and that of both edits, which the replica itself kept for the second.
    assert metrics.total("careedit_encodings", outcome="made") == 2


def test_replicas_share_encoded_prompts(encoder, live, call, events):
    replica, metrics = encoder()
    for expert in ("erase", "style"):
        with live(Handle(replica), expert=expert) as (edits, _):
            events(edits, call(expert=expert))
    assert metrics.total("careedit_encodings", outcome="made") == 2
    assert metrics.total("careedit_encodings", outcome="reused") == 2


def test_prompts_that_wait_are_one_batch_with_each_prompt_once_and_say_so(encoder, loop, untrained_set, monkeypatch):
    replica, metrics = encoder(batch=3)
    base = base_key(load_expert_set(untrained_set))
    (own,) = replica._bases.values()
    begun, go, encode = threading.Event(), threading.Event(), own._encoder.encode_prompts

    def wait(self, prompts):
        begun.set()
        return go.wait(10) and encode(prompts)

    def ask(text):
        return asyncio.run_coroutine_threadsafe(replica.encode(base, [Prompt(text)]), loop)

    monkeypatch.setattr(type(own._encoder), "encode_prompts", wait)
    texts = ["first", "one", "two", "two", "three"]
    asked = [ask(texts[0])]
    assert begun.wait(10)
    asked += [ask(text) for text in texts[1:]]
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
    go.set()
    answers = {text: one.result(10).encodings[0] for text, one in zip(texts, asked, strict=True)}

    assert metrics.values["careedit_encode_batch"][()] == [1, 2, 1]
    assert metrics.total("careedit_encodings", outcome="reused") == 1
    assert [answers[text].together for text in ("first", "one", "two", "three")] == [False, True, True, False]
    for text, answer in answers.items():
        torch.testing.assert_close(answer.tensors, encode([Prompt(text)])[0], atol=1e-5, rtol=1e-5)


def test_an_edit_whose_prompt_was_encoded_with_others_says_that_a_replay_may_differ(
    encoder, live, call, events, monkeypatch
):
    replica, _ = encoder()
    monkeypatch.setattr(encoder_replica, "runtime_in_words", lambda *_: "another kind of GPU")
    (own,) = replica._bases.values()
    with live(Handle(replica)) as (edits, _):
        own.runtime = "yet another"
        told = events(edits, call(instruction="remove the moon"))[0][-1]
    assert [one for one in told.trace.degradations if one.startswith("replay")]


@pytest.mark.parametrize(
    "failure",
    [
        ActorDiedError(),
        BackPressureError(num_queued_requests=1, max_queued_requests=1),
        RayTaskError("encode", "", UnavailableError("This encoder does not have the edit's base; try again.")),
    ],
    ids=["lost", "full", "being replaced"],
)
def test_a_call_of_a_lost_full_or_changing_encoder_is_made_again(failure, encoder, live, call, events):
    handle = Handle(encoder()[0])
    with live(handle) as (edits, metrics):
        handle.failures.append(failure)
        told = events(edits, call(instruction="remove the moon"))[0][-1]
    assert told.kind == "made"
    assert metrics.total("careedit_encodings", outcome="repeated") == 1


class Silent:
    async def encode(self, base, prompts):
        await asyncio.Event().wait()


def test_a_prompt_that_waits_for_an_encoder_ends_at_the_deadline_or_with_its_edit(loop, open_editor):
    engine = open_editor("shared").engine
    handle = Handle(Silent())
    remote = RemoteEncoder(EncoderLink(handle, loop, Metrics(Recording())), "base", engine, 1)
    with pytest.raises(DeadlineError, match="waited for an encoder"):
        remote.encode([Prompt("remove it")], time.monotonic() + 0.05).result(10)
    assert handle.cancelled.acquire(timeout=10)
    handle.called.clear()
    waiting = remote.encode([Prompt("remove it")], time.monotonic() + 60)
    assert handle.called.wait(10) and waiting.cancel()
    assert handle.cancelled.acquire(timeout=10), "the replica's work is cancelled too"


def test_an_edit_that_is_cancelled_while_its_prompt_waits_ends_at_once(scheduler, loop, job):
    from careedit_deployments.replica.client import EngineClient

    engine = scheduler.engine
    handle = Handle(Silent())
    remote = RemoteEncoder(EncoderLink(handle, loop, Metrics(Recording())), "base", engine, 1)
    client = EngineClient(scheduler, encoder=remote, deadline=time.monotonic() + 60)
    failed = []

    def prepare():
        try:
            client.prepare(job())
        except CancelledError as error:
            failed.append(error)

    thread = threading.Thread(target=prepare)
    thread.start()
    assert handle.called.wait(10)
    assert scheduler.call(lambda: "free").result(10) == "free", "the engine does not wait"
    client.cancel()
    thread.join(10)
    assert len(failed) == 1


def test_a_base_is_replaced_in_place_and_a_bad_one_is_refused(encoder, untrained_set, tmp_path, loop, caplog):
    replica, _ = encoder()
    folder = shutil.copytree(untrained_set, tmp_path / "set")
    old, new = "0" * 64, base_key(load_expert_set(folder))
    assert new == base_key(load_expert_set(untrained_set)), "another folder with the same base shares its encoders"

    def reconfigure(base):
        choice = {"expert_set": str(folder), "base": base}
        asyncio.run_coroutine_threadsafe(replica.reconfigure(choice), loop).result(60)

    reconfigure(old)
    assert "deploy it again" in caplog.text
    with pytest.raises(UnavailableError, match="does not have the edit's base"):
        asyncio.run_coroutine_threadsafe(replica.encode(old, [Prompt("x")]), loop).result(10)
    with pytest.raises(ExpertError, match="deploy it again"):
        asyncio.run(EncoderReplica(FIELDS, {}, Recording()).reconfigure({"expert_set": str(folder), "base": old}))
    assert load_base(folder / "base", text_encoders=False).text_encoder is None
