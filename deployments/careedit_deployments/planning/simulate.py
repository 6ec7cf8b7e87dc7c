"""Edits through replicas and judges, event by event (SimPy).

A replica works on all its edits at the same time, as the step scheduler does: with b edits in flight, each progresses at
1 / slowdown(b) of its speed alone. (Time is continuous instead of divided into steps: the end of an edit is off by less
than a step.) If all replicas are full, an edit waits, first come, first served. Otherwise the emptier of two random
replicas with a free slot takes it, as in Ray Serve's power-of-two router.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import simpy

from careedit_deployments.deployment import Scaling
from careedit_deployments.replica.scaling import replicas_needed

Process = Generator[Any, Any, Any]

LOOK_S = 1.0
"""Seconds between two decisions of the autoscaler."""


@dataclass
class Edit:
    """One edit: seconds of editing (alone on a replica), and the judgements in between."""

    pool: str
    """Name of the pool that edits."""
    work: tuple[float, ...]
    """Seconds of editing before and after the judgements. Only one number without an early filter."""
    judgements: int = 0
    """Number of previews that are judged in between."""
    came: float = 0.0
    """Time of arrival, in simulated seconds."""
    left: float | None = None
    """Time of the answer, in simulated seconds. None: rejected, or not finished."""
    refused: bool = False
    """Whether the edit was rejected because the queue was full."""


@dataclass(eq=False)
class Replica:
    """A replica and its edits; `Pool` calls it."""

    pool: Pool
    """The pool that the replica belongs to."""
    held: dict[int, tuple[float, simpy.Event]] = field(default_factory=dict)
    """Per edit in progress: remaining seconds (alone), and the event at its end."""
    slots: int = 0
    """Number of occupied slots, including those of edits at the judge."""
    leaving: bool = False
    """Whether the replica accepts no more edits and ends when it is empty."""
    since: float = 0.0
    """Time up to which `held` is updated."""
    changed: simpy.Event = field(init=False)
    """Event that happens when the replica gets more work."""

    def __post_init__(self) -> None:
        self.changed = self.pool.env.event()
        self.pool.env.process(self._run())

    def work(self, seconds: float) -> simpy.Event:
        """Start `seconds` of work; the returned event happens when they are done."""
        self._advance()
        done = self.pool.env.event()
        self.held[self.pool.next_key()] = (seconds, done)
        self._signal()
        return done

    @property
    def backlog(self) -> float:
        """Remaining seconds of work, each edit counted alone."""
        self._advance()
        return sum(left for left, _ in self.held.values())

    def _advance(self) -> None:
        env = self.pool.env
        if self.held and env.now > self.since:
            gone = (env.now - self.since) / self.pool.slowdown(len(self.held))
            self.held = {key: (left - gone, done) for key, (left, done) in self.held.items()}
            self.pool.busy_s += env.now - self.since
        self.since = env.now

    def _signal(self) -> None:
        self.changed.succeed()
        self.changed = self.pool.env.event()

    def _run(self) -> Process:
        env = self.pool.env
        while True:
            if not self.held:
                yield self.changed
                continue
            key, (left, done) = min(self.held.items(), key=lambda item: item[1][0])
            finished = env.timeout(max(left, 0.0) * self.pool.slowdown(len(self.held)))
            yield finished | self.changed
            if finished.processed:
                self._advance()
                del self.held[key]
                done.succeed()


class Pool:
    """Replicas of one kind, their common queue, and optionally their autoscaler."""

    def __init__(
        self,
        env: simpy.Environment,
        replicas: int,
        *,
        held: int,
        slowdown: Callable[[float], float] = lambda rows: rows,
        queue: int | None = None,
        draw: random.Random,
    ) -> None:
        self.env, self.held, self.slowdown, self.limit, self._draw = env, held, slowdown, queue, draw
        self.waiting: deque[tuple[simpy.Event, float]] = deque()
        """Waiting edits, with their seconds of work."""
        self.busy_s = 0.0
        """Seconds in which replicas worked, summed over replicas."""
        self.paid_s = 0.0
        """Seconds in which replicas existed or started, summed over replicas."""
        self._counted, self._starting, self._key = env.now, 0, 0
        self.replicas = [Replica(self) for _ in range(replicas)]

    @property
    def size(self) -> int:
        """Number of replicas that exist or start."""
        return len(self.replicas) + self._starting

    def enter(self, seconds: float) -> simpy.Event | None:
        """Request a slot on a replica; the value of the event is the replica. None: the queue is full."""
        place = self.env.event()
        replica = self._free()
        if replica is not None:
            replica.slots += 1
            place.succeed(replica)
        elif self.limit is not None and len(self.waiting) >= self.limit:
            return None
        else:
            self.waiting.append((place, seconds))
        return place

    def leave(self, replica: Replica) -> None:
        """Release a slot; the next waiting edit takes it."""
        replica.slots -= 1
        if replica.leaving and replica.slots == 0:
            self._count()
            self.replicas.remove(replica)
        self._admit()

    def scale(self, settings: Scaling, start_s: float, each_s: float) -> Process:
        """The autoscaler, with the function that Ray's controller runs (`careedit_deployments.replica.scaling`)."""
        wants_since: dict[str, float] = {}
        while True:
            yield self.env.timeout(LOOK_S)
            live = [replica for replica in self.replicas if not replica.leaving]
            wanted = replicas_needed(
                queued_seconds=[replica.backlog for replica in live],
                seconds_per_edit=[each_s],
                waiting_requests=len(self.waiting),
                running_requests=sum(replica.slots for replica in live),
                target_seconds=settings.target_step_seconds,
                minimum=max(1, settings.min_replicas),
                maximum=settings.max_replicas,
            )
            now = len(live) + self._starting
            way, delay = ("up", settings.upscale_delay_s) if wanted > now else ("down", settings.downscale_delay_s)
            if wanted == now:
                wants_since.clear()
                continue
            wants_since = {way: wants_since.get(way, self.env.now)}
            if self.env.now - wants_since[way] < delay:
                continue
            wants_since.clear()
            self._count()
            if way == "up":
                self._starting += wanted - now
                for _ in range(wanted - now):
                    self.env.process(self._start(start_s))
            else:
                self._retire(sorted(live, key=lambda replica: replica.slots)[: now - wanted])

    def next_key(self) -> int:
        """A unique number for a piece of work."""
        self._key += 1
        return self._key

    def close(self) -> None:
        """Update the sums to the current time."""
        self._count()
        for replica in self.replicas:
            replica._advance()

    def _retire(self, chosen: Iterable[Replica]) -> None:
        for replica in chosen:
            replica.leaving = True
            if replica.slots == 0:
                self.replicas.remove(replica)

    def _start(self, seconds: float) -> Process:
        yield self.env.timeout(seconds)
        self._count()
        self._starting -= 1
        self.replicas.append(Replica(self, since=self.env.now))
        self._admit()

    def _admit(self) -> None:
        while self.waiting and (replica := self._free()) is not None:
            replica.slots += 1
            self.waiting.popleft()[0].succeed(replica)

    def _free(self) -> Replica | None:
        free = [one for one in self.replicas if one.slots < self.held and not one.leaving]
        if len(free) > 2:
            free = self._draw.sample(free, 2)
        return min(free, key=lambda one: one.slots, default=None)

    def _count(self) -> None:
        self.paid_s += self.size * (self.env.now - self._counted)
        self._counted = self.env.now


def travel(env: simpy.Environment, edit: Edit, pool: Pool, judges: Pool | None, judge_s: float) -> Process:
    """Process of one edit, from arrival to answer."""
    edit.came = env.now
    place = pool.enter(sum(edit.work))
    if place is None:
        edit.refused = True
        return
    replica = yield place
    yield replica.work(edit.work[0])
    if edit.judgements and judges is not None:
        yield env.all_of([env.process(_judge(judges, judge_s)) for _ in range(edit.judgements)])
        yield replica.work(edit.work[1])
    pool.leave(replica)
    edit.left = env.now


def _judge(judges: Pool, seconds: float) -> Process:
    place = judges.enter(seconds)
    if place is not None:
        judge = yield place
        yield judge.work(seconds)
        judges.leave(judge)
