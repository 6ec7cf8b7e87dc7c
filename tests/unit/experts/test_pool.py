from __future__ import annotations

import threading
from threading import RLock

import pytest

from careedit.errors import ExpertError
from careedit.experts.pool import LeasePool


class Recorder:
    """A pool without weights that records what is loaded and unloaded."""

    def __init__(self, budget: int | None) -> None:
        self.log: list[str] = []
        self.pool = LeasePool(
            size=lambda name: int(name[1:]),
            load=lambda name: self.log.append(f"+{name}"),
            unload=lambda name: self.log.append(f"-{name}"),
            budget=budget,
            lock=RLock(),
        )


@pytest.mark.parametrize(
    ("budget", "names", "log", "resident"),
    [
        (None, ("a10", "b10", "c10", "a10"), ["+a10", "+b10", "+c10"], ("b10", "c10", "a10")),
        (20, ("a10", "b10", "a10", "c10"), ["+a10", "+b10", "-b10", "+c10"], ("a10", "c10")),
        (30, ("a10", "b10", "c10", "d15"), ["+a10", "+b10", "+c10", "-a10", "-b10", "+d15"], ("c10", "d15")),
    ],
)
def test_the_least_recently_used_go_first_and_as_many_as_are_needed(budget, names, log, resident):
    recorder = Recorder(budget)
    for name in names:
        with recorder.pool.lease([name]):
            pass
    assert recorder.log == log
    assert recorder.pool.resident == resident
    assert recorder.pool.used == sum(int(name[1:]) for name in resident)


def test_one_in_use_is_never_evicted():
    recorder = Recorder(20)
    with recorder.pool.lease(["a10"]):
        for name in ("b10", "c10", "d10"):
            with recorder.pool.lease([name]):
                pass
        assert "-a10" not in recorder.log
        with recorder.pool.lease(["b10"]), pytest.raises(ExpertError, match="budget"), recorder.pool.lease(["c10"]):
            pytest.fail("the budget was exceeded")
        assert recorder.pool.used <= 20
    with recorder.pool.lease(["c10", "d10"]):
        assert recorder.pool.resident == ("c10", "d10")


def test_an_adapter_larger_than_the_budget_is_refused_in_a_sentence():
    recorder = Recorder(20)
    with pytest.raises(ExpertError, match=r"'a30' needs .* raise the budget"), recorder.pool.lease(["a30"]):
        pytest.fail("it was loaded")
    assert recorder.log == []


def test_a_lease_of_several_pins_all_of_them_or_none():
    recorder = Recorder(20)
    with recorder.pool.lease(["b10"]):
        pass
    with pytest.raises(ExpertError), recorder.pool.lease(["a10", "b10", "c10"]):
        pytest.fail("the budget was exceeded")
    recorder.pool.drop("a10")
    recorder.pool.drop("b10")
    assert recorder.pool.resident == ()


def test_making_room_for_one_of_a_lease_does_not_evict_another():
    recorder = Recorder(20)
    for name in ("b10", "c10"):
        with recorder.pool.lease([name]):
            pass
    with recorder.pool.lease(["a10", "b10"]):
        assert set(recorder.pool.resident) == {"a10", "b10"}
    assert "-b10" not in recorder.log


def test_one_in_use_cannot_be_dropped_until_its_last_lease_ends():
    recorder = Recorder(None)
    with recorder.pool.lease(["a10"]):
        with recorder.pool.lease(["a10", "a10", "base"]):
            pass
        with pytest.raises(ExpertError, match="in use by 1 edit"):
            recorder.pool.drop("a10")
    recorder.pool.drop("a10")
    assert recorder.log == ["+a10", "-a10"]


def test_a_load_that_fails_leaves_nothing_behind():
    def fail(name: str) -> None:
        raise ExpertError(f"{name} is damaged.")

    pool = LeasePool(size=lambda _: 10, load=fail, unload=lambda _: None, budget=10, lock=RLock())
    with pytest.raises(ExpertError, match="damaged"), pool.lease(["a"]):
        pytest.fail("it was loaded")
    assert (pool.resident, pool.used) == ((), 0)


def test_threads_that_lease_and_release_at_once_stay_within_the_budget():
    recorder = Recorder(30)
    seen: list[int] = []

    def work(names: list[str]) -> None:
        for name in names * 40:
            with recorder.pool.lease([name]):
                seen.append(recorder.pool.used)
                assert name in recorder.pool.resident

    threads = [threading.Thread(target=work, args=(names,)) for names in (["a10", "b10"], ["c10", "d10"], ["e10"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 200
    assert max(seen) <= 30
