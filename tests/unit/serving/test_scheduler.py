"""The step scheduler: who shares a batch, in which order, and what happens to the others when one fails or leaves."""

from __future__ import annotations

import threading

import pytest
import torch

from careedit.errors import CancelledError
from careedit_deployments.errors import UnavailableError
from careedit_deployments.replica.client import EngineClient


@pytest.fixture
def batches(editor, monkeypatch):
    """Seeds of every batch that the engine stepped, in order."""
    seen = []
    step = editor.engine.step

    def counted(states):
        seen.append([state.job.seed for state in states])
        step(states)

    monkeypatch.setattr(editor.engine, "step", counted)
    return seen


@pytest.fixture
def prepared(scheduler, job):
    return lambda *args, **fields: scheduler.call(lambda: scheduler.engine.prepare(job(*args, **fields))).result(10)


@pytest.fixture
def paused(scheduler):
    """A context in which the engine's thread stands still, so that requests gather."""

    class Pause:
        def __enter__(self):
            self.go = threading.Event()
            entered = threading.Event()
            scheduler.call(lambda: (entered.set(), self.go.wait(10)))
            assert entered.wait(10)

        def __exit__(self, *_):
            self.go.set()

    return Pause()


def wait(*requests):
    return [request.future.result(20) for request in requests]


def test_edits_of_one_shape_share_batches_and_leave_when_they_are_done(scheduler, prepared, paused, batches):
    short, long = prepared(1, steps=1), prepared(2, steps=3)
    with paused:
        requests = [scheduler.advance([short]), scheduler.advance([long])]
    wait(*requests)
    assert batches == [[1, 2], [2], [2]]
    assert (short.done, long.done) == (True, True)
    assert [request.shared for request in requests] == [True, True]


def test_an_edit_that_joins_is_stepped_with_the_next_batch(scheduler, prepared, batches):
    first, second = prepared(1, steps=3), prepared(2, steps=1)
    joined = []

    def join(_):
        if not joined:
            joined.append(scheduler.advance([second]))

    wait(scheduler.advance([first], on_steps=join))
    wait(*joined)
    assert batches == [[1], [1, 2], [1]]


def test_an_edit_that_waits_to_join_while_a_batch_is_picked_is_not_forgotten(scheduler, prepared, monkeypatch):
    first, second = prepared(1, steps=3), prepared(2, steps=1)
    picked, pick, here = threading.Event(), scheduler._pick, threading.current_thread()

    def picking():
        chosen = pick()
        picked.set()
        return chosen

    class Delayed(threading.Condition):
        """Lets the engine's thread pick a batch between the call of `advance` and its turn at the lock."""

        def __enter__(self):
            if threading.current_thread() is here and not picked.is_set():
                assert picked.wait(10)
            return super().__enter__()

    begun, go = threading.Event(), threading.Event()
    monkeypatch.setattr(scheduler, "_pick", picking)
    held = scheduler.advance([first], on_steps=lambda _: (begun.set(), go.wait(10)))
    assert begun.wait(10)
    picked.clear()
    monkeypatch.setattr(scheduler, "_changed", Delayed(scheduler._changed._lock))
    go.set()
    late = scheduler.advance([second])
    wait(held, late)
    assert second.done
    delayed = scheduler._changed
    monkeypatch.undo()
    with delayed:  # the engine's thread waits there, and would not see the end
        delayed.notify_all()


def test_a_step_alone_is_not_called_shared(scheduler, prepared):
    states = [prepared(seed, steps=2) for seed in (1, 2)]
    request = scheduler.advance(states)
    wait(request)
    assert not request.shared


def test_rows_are_capped_and_the_turns_go_round(scheduler, prepared, paused, batches):
    many = [[prepared(10 * i + j, steps=2) for j in range(3)] for i in range(3)]
    one = prepared(99, steps=1)
    with paused:
        requests = [scheduler.advance(states) for states in [*many, [one]]]
    wait(*requests)
    assert max(len(batch) for batch in batches) == scheduler.batch
    # The single edit, last in the queue, fits beside the first three rows and waits for nobody.
    assert batches[0] == [0, 1, 2, 99]
    assert [batch[0] // 10 for batch in batches] == [0, 1, 2, 0, 1, 2]


def test_other_shapes_take_turns_in_batches_of_their_own(scheduler, prepared, paused, batches):
    plain, wide = prepared(1, steps=2), prepared(2, steps=2, reference=True)
    with paused:
        requests = [scheduler.advance([plain]), scheduler.advance([wide])]
    wait(*requests)
    assert batches == [[1], [2], [1], [2]]
    assert not any(request.shared for request in requests)


def test_more_rows_than_a_batch_holds_are_split_and_said_to_be(scheduler, prepared, batches):
    states = [prepared(seed, steps=1) for seed in range(scheduler.batch + 1)]
    request = scheduler.advance(states)
    wait(request)
    assert [len(batch) for batch in batches] == [scheduler.batch, 1]
    assert request.shared


def test_the_same_state_comes_out_as_from_the_engine_alone(scheduler, prepared, editor, job):
    alone = editor.engine.prepare(job(5, steps=3, expert="erase"))
    for _ in range(3):
        editor.engine.step([alone])
    state = prepared(5, steps=3, expert="erase")
    wait(scheduler.advance([state], 2), scheduler.advance([state]))
    assert torch.equal(state.latents, alone.latents)


def test_a_cancelled_edit_is_not_stepped_again(scheduler, prepared, batches):
    state = prepared(1, steps=50)
    request = scheduler.advance([state], on_steps=lambda _: state.cancel())
    with pytest.raises(CancelledError):
        wait(request)
    assert (state.index, batches) == (1, [[1]])
    assert scheduler.counters.steps_after_cancel == 0


def test_a_seat_that_is_left_wakes_who_waits_and_steps_no_more(scheduler, job):
    client = EngineClient(scheduler)
    state = client.prepare(job(1, steps=50))
    with pytest.raises(CancelledError):
        client.advance([state], on_steps=lambda _: client.cancel())
    assert state.index == 1
    with pytest.raises(CancelledError):
        client.prepare(job(2))
    assert scheduler.call(lambda: state.index).result(10) == 1


def test_one_edits_failure_is_not_its_neighbours(scheduler, prepared, paused, editor, monkeypatch):
    bad, good = prepared(1, steps=2), prepared(2, steps=2)
    step = editor.engine.step

    def failing(states):
        if bad in states:
            raise RuntimeError("CUDA out of memory")
        step(states)

    monkeypatch.setattr(editor.engine, "step", failing)
    with paused:
        requests = [scheduler.advance([bad]), scheduler.advance([good])]
    wait(requests[1])
    with pytest.raises(RuntimeError, match="out of memory"):
        wait(requests[0])
    assert good.done and bad.index == 0
    assert scheduler.counters.failures >= 1


def test_a_batch_that_only_fails_together_is_made_one_by_one(scheduler, prepared, paused, editor, monkeypatch):
    states = [prepared(seed, steps=1) for seed in (1, 2)]
    step = editor.engine.step

    def failing(given):
        if len(given) > 1:
            raise RuntimeError("CUDA out of memory")
        step(given)

    monkeypatch.setattr(editor.engine, "step", failing)
    with paused:
        requests = [scheduler.advance([state]) for state in states]
    wait(*requests)
    assert all(state.done for state in states)


def test_a_failing_call_is_told_to_its_caller_and_the_thread_lives_on(scheduler, prepared):
    with pytest.raises(ZeroDivisionError):
        scheduler.call(lambda: 1 // 0).result(10)
    wait(scheduler.advance([prepared(1, steps=1)]))


def test_the_health_check_asks_only_an_engine_that_has_not_stepped(scheduler, prepared):
    asked = []
    wait(scheduler.advance([prepared(1, steps=1)]))
    scheduler.check(lambda: asked.append(1), timeout=10)
    assert asked == []
    scheduler.check(lambda: asked.append(2), timeout=10)
    assert asked == [2]
    with pytest.raises(ZeroDivisionError):
        scheduler.check(lambda: 1 // 0, timeout=10)


def test_the_health_check_fails_while_the_engine_is_stuck(scheduler, paused):
    with paused, pytest.raises(UnavailableError, match=r"no step for 0\.05 seconds"):
        scheduler.check(lambda: None, timeout=0.05)
    scheduler.check(lambda: None, timeout=10)


def test_a_step_that_does_not_end_is_seen_unless_it_is_the_first_of_its_shape(scheduler, prepared, editor, monkeypatch):
    def stuck():
        """The time for which a step has run, and whether the health check passes, while the step does not end."""
        entered, go, step = threading.Event(), threading.Event(), editor.engine.step
        with monkeypatch.context() as patch:
            patch.setattr(editor.engine, "step", lambda states: (entered.set(), go.wait(10), step(states)))
            request = scheduler.advance([prepared(1, steps=1)])
            assert entered.wait(10)
            scheduler._healthy = False
            try:
                scheduler.check(lambda: None, timeout=0.05)
                healthy = True
            except UnavailableError:
                healthy = False
            seen = scheduler.busy_s
            go.set()
            wait(request)
        return seen > 0, healthy

    assert stuck() == (False, True), "it may compile"
    assert stuck() == (True, False)
    assert scheduler.busy_s == 0 < scheduler.step_s


def test_a_closed_scheduler_ends_its_work_and_refuses_more(scheduler, prepared, paused):
    state = prepared(1, steps=3)
    with paused:
        request = scheduler.advance([state])
        threading.Thread(target=scheduler.close).start()
    wait(request)
    scheduler.close(timeout=10)
    with pytest.raises(UnavailableError, match="closed"):
        scheduler.call(lambda: None)
    with pytest.raises(UnavailableError, match="thread has ended"):
        scheduler.check(lambda: None, 1)
        scheduler.check(lambda: None, 1)


def test_what_waits_is_told_in_seconds(scheduler, prepared):
    assert scheduler.load.queued_seconds == 0
    wait(scheduler.advance([prepared(1, steps=4)]))
    pixels = 128 * 64
    with scheduler.load.announced(10 * pixels) as key:
        whole = scheduler.load.queued_seconds
        scheduler.load.spend(key, 5 * pixels)
        assert scheduler.load.queued_seconds == pytest.approx(whole / 2) and whole > 0
        assert (scheduler.load.edits, scheduler.load.seconds_per_edit) == (1, pytest.approx(whole))
    assert scheduler.load.queued_seconds == 0
