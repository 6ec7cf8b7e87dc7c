"""The process's clock while the host's or the database's is set wrongly: nothing expires early, and the right time is followed."""

from __future__ import annotations

import pytest

from careedit_deployments.config import StateConfig
from careedit_deployments.state.clock import FOLLOW_S, SteadyClock
from careedit_deployments.state.store import Store
from state_records import NOON, Clock, a_job, a_session
from stores import with_store

HOUR, DAY = 3600.0, 24 * 3600.0


@pytest.fixture
def host() -> Clock:
    return Clock()


@pytest.fixture
def elapsed() -> Clock:
    return Clock()


@pytest.fixture
def clock(host: Clock, elapsed: Clock) -> SteadyClock:
    return SteadyClock(host, elapsed)


def run(clock: SteadyClock, host: Clock, elapsed: Clock, seconds: float, step: float = 10.0) -> list[float]:
    """The times of a clock that is read every `step` seconds."""
    seen = []
    for _ in range(int(seconds / step)):
        host.now, elapsed.now = host.now + step, elapsed.now + step
        seen.append(clock())
    return seen


@pytest.mark.parametrize("move", [HOUR, -HOUR, 8 * DAY])
def test_a_clock_that_is_wrong_for_minutes_moves_nothing(move: float, clock, host, elapsed) -> None:
    host.now += move
    run(clock, host, elapsed, FOLLOW_S - 20)
    host.now -= move
    run(clock, host, elapsed, 60)
    host.now += move  # a new start of the wait
    run(clock, host, elapsed, FOLLOW_S - 20)
    assert clock() - NOON == elapsed.now - NOON


def test_several_wrong_times_do_not_add_up_to_one_that_lasts(clock, host, elapsed) -> None:
    for move in (HOUR, 8 * DAY, -HOUR):
        host.now += move
        run(clock, host, elapsed, FOLLOW_S / 2)
    assert clock() == elapsed.now


def test_a_correction_is_followed_at_once_if_it_is_small_and_later_if_it_is_large(clock, host, elapsed) -> None:
    host.now += 0.5
    assert clock() == NOON + 0.5
    host.now += HOUR
    run(clock, host, elapsed, FOLLOW_S + 20)
    assert clock() == host.now == elapsed.now + HOUR + 0.5


def test_a_database_server_replaces_the_host_as_reference(clock, host, elapsed) -> None:
    host.now += 8 * DAY
    clock.follow(NOON + 5)
    assert clock() == NOON + 5, "at once, as nothing was compared with the host's time before"
    clock.follow(NOON + HOUR)
    elapsed.now += 60
    assert clock() == NOON + 65, "the database's clock may be wrong for a while too"


@pytest.mark.parametrize("move", [HOUR, -HOUR, 8 * DAY])
def test_leases_jobs_and_sessions_outlive_a_wrong_clock(move: float, clock, host, elapsed, state: StateConfig) -> None:
    async def work(store: Store) -> None:
        done, running, session = a_job(), a_job(), a_session(expires=NOON + DAY)
        for job in (done, running):
            await store.jobs.add(job)
        await store.sessions.add(session)
        first, second = [await store.jobs.claim("a", lease_s=15, attempts=3) for _ in range(2)]
        await store.jobs.finish(first, "completed")
        host.now += move
        assert await store.jobs.claim("b", lease_s=15, attempts=3) is None
        assert await store.jobs.renew_lease(second, lease_s=15) is False, "it is held and goes on"
        assert (await store.jobs.expired(), await store.sessions.expired()) == ([], [])
        assert await store.sessions.get(session.id) == session
        run(clock, host, elapsed, 20)
        assert (await store.jobs.claim("b", lease_s=15, attempts=3)).id == second.id, "leases end as before"

    with_store(state, clock)(work)
