"""Signs of life: how an ingress replica notices an expert replica that hangs but does not die.

A stopped process or a stuck kernel ends no connection, so no error comes. Therefore an expert replica sends a `Pulse` when an
edit begins and after every `PULSE_S` seconds without another event. Two things count as silence: no message at all, and a
step that does not end, which the pulses report. A slow start does not: the time before the first pulse, in which a request
waits for a replica, and everything that a replica does besides steps of a shape that it has stepped before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Literal, TypeVar

from careedit.record import Record

Event = TypeVar("Event")

PULSE_S = 1.0
"""Seconds without an event after which a replica sends a pulse."""
HANG_STEPS = 5
"""Duration of the slowest recent steps after which a replica that shows no life counts as hung, if that exceeds the setting."""


class Pulse(Record):
    """A message that only shows that a replica works; `RayBackend` does not pass it on."""

    kind: Literal["pulse"] = "pulse"
    """Type of the event; always "pulse"."""
    replica: str
    """Name of the replica's Ray actor."""
    step_s: float = 0.0
    """Seconds of the slowest of the recent steps; 0 before the first one."""
    busy_s: float = 0.0
    """Seconds since the running step began; 0 if no step runs, and for the first step of its shape, which may compile."""


class Silence:
    """Whether the replica of one edit hangs. `minimum_s` is `ServeConfig.hang_s`."""

    def __init__(self, minimum_s: float) -> None:
        self._minimum_s = self._limit_s = minimum_s
        self._seconds = 0.0
        self.replica: str | None = None
        """Name of the replica's actor; None before its first pulse."""

    @property
    def hung(self) -> bool:
        """Whether the replica has shown no life for too long."""
        return self.replica is not None and self._seconds > self._limit_s

    def note(self, event: object) -> None:
        """Take in an event, or None for `PULSE_S` seconds without one.

        Such intervals are counted and not measured: if this process itself stood still, that is not the replica's silence.
        """
        if event is None:
            self._seconds += PULSE_S
        elif isinstance(event, Pulse):
            self.replica, self._seconds = event.replica, event.busy_s
            self._limit_s = max(self._minimum_s, HANG_STEPS * event.step_s)
        else:
            self._seconds = 0.0


async def paced(events: AsyncIterator[Event], seconds: float = PULSE_S) -> AsyncGenerator[Event | None]:
    """The events, and None after every `seconds` without one."""

    async def following() -> tuple[Event] | None:
        try:
            return (await anext(events),)
        except StopAsyncIteration:
            return None

    coming: asyncio.Task[tuple[Event] | None] | None = None
    try:
        while True:
            coming = coming or asyncio.create_task(following())
            await asyncio.wait({coming}, timeout=seconds)
            if not coming.done():
                yield None
                continue
            event, coming = coming.result(), None
            if event is None:
                return
            yield event[0]
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
