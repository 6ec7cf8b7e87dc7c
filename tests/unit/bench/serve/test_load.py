"""The load generator against edits that only count."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from careedit.errors import CareEditError
from careedit.records import EditRequest, EditResult
from careedit_deployments.bench.load import behind, by_clients, in_batches, replay
from careedit_deployments.bench.workload import EXPERTS, BenchPlan, Workload

NAMES = ("erase", "compose", "style", "identity", "reference")


@pytest.fixture(scope="module")
def load() -> Workload:
    return Workload(BenchPlan(steps=3), NAMES, 64)


def result(request: EditRequest) -> EditResult:
    return EditResult(images=(request.image,), traces=())


def test_the_same_index_is_the_same_request_for_every_side(load: Workload) -> None:
    assert load.mixed(4, 8) == load.mixed(4, 8)
    assert load.mixed(0, 4) != load.mixed(4, 4)


def test_four_experts_are_mixed_evenly_in_one_canvas_shape(load: Workload) -> None:
    requests = load.mixed(0, 4 * EXPERTS)

    assert [request.expert for request in requests] == 4 * list(NAMES[:EXPERTS])
    assert all(request.mask is None and not request.references and request.steps == 3 for request in requests)


def test_short_and_long_edits_differ_in_their_steps_alone(load: Workload) -> None:
    short, long = (load.alike(2, 1, steps)[0] for steps in (3, load.plan.long_steps))

    assert long.model_copy(update={"steps": 3}) == short
    assert (long.steps, long.expert) == (18, "erase")


def test_many_clients_keep_the_order_and_send_at_once(load: Workload) -> None:
    together = threading.Barrier(4, timeout=30)

    def edit(request: EditRequest) -> EditResult:
        together.wait()  # passed only by four at once
        return result(request)

    requests = load.mixed(0, 8)

    assert [made.image for made in by_clients(edit, 4)(requests)] == [request.image for request in requests]


def test_an_error_of_one_edit_is_raised(load: Workload) -> None:
    def edit(request: EditRequest) -> EditResult:
        raise CareEditError("It broke.")

    with pytest.raises(CareEditError, match="It broke"):
        by_clients(edit, 2)(load.mixed(0, 2))


def test_in_process_each_expert_has_its_edits_in_one_call(load: Workload) -> None:
    calls: list[list[str]] = []

    class Counting:
        def edit(self, requests: list[EditRequest]) -> list[EditResult]:
            calls.append([str(request.expert) for request in requests])
            return [result(request) for request in requests]

    requests = load.mixed(0, 8)
    made = in_batches(Counting())(requests)  # type: ignore[arg-type]

    assert calls == [[name] * 2 for name in NAMES[:EXPERTS]]
    assert [one.image for one in made] == [request.image for request in requests]


@pytest.mark.parametrize("clients", [1, 3])
def test_long_edits_are_in_hand_meanwhile_and_none_afterwards(clients: int, load: Workload) -> None:
    (long,) = load.alike(0, 1, 18)
    begun, in_hand, most = threading.Semaphore(0), 0, 0
    lock = threading.Lock()

    def edit(request: EditRequest) -> EditResult:
        nonlocal in_hand, most
        with lock:
            in_hand += 1
            most = max(most, in_hand)
        begun.release()
        with lock:
            in_hand -= 1
        return result(request)

    with behind(edit, long, clients):
        for _ in range(2 * clients + 1):
            assert begun.acquire(timeout=30)  # they are sent over and over
    assert in_hand == 0
    assert 1 <= most <= clients


def test_with_no_long_clients_nothing_is_sent(load: Workload) -> None:
    def edit(request: EditRequest) -> EditResult:
        raise AssertionError

    with behind(edit, load.alike(0, 1, 18)[0], 0):
        pass


def test_a_long_edit_that_fails_is_told_at_the_end(load: Workload) -> None:
    def edit(request: EditRequest) -> EditResult:
        raise CareEditError("It broke.")

    with pytest.raises(CareEditError, match="It broke"), behind(edit, load.alike(0, 1, 18)[0], 2):
        pass


def replayed(load: Workload, arrivals: list[float], edit: Callable[[EditRequest], EditResult]) -> list[float | None]:
    return replay(edit, load.mixed(0, len(arrivals)), arrivals)


def test_a_replay_does_not_wait_for_answers_before_it_sends_on(load: Workload) -> None:
    together = threading.Barrier(3, timeout=30)

    def edit(request: EditRequest) -> EditResult:
        together.wait()
        return result(request)

    seconds = replayed(load, [0.0, 0.01, 0.2], edit)

    assert all(taken is not None for taken in seconds)
    assert seconds[0] >= 0.2  # type: ignore[operator]  # it was held until the third had come


def test_a_failed_edit_of_a_replay_has_no_time_and_disturbs_no_other(load: Workload) -> None:
    def edit(request: EditRequest) -> EditResult:
        if request.expert == "compose":
            raise CareEditError("It broke.")
        return result(request)

    first, second, third = replayed(load, [0.0, 0.0, 0.0], edit)

    assert (first is None, second is None, third is None) == (False, True, False)
