"""`Stopping`: whether an ingress replica is about to end. Background tasks and event streams watch it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Stopping:
    """The stop signal of one replica; it belongs to the event loop of the replica."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._counts: list[Callable[[], int]] = []

    @property
    def begun(self) -> bool:
        """Whether the replica has stopped accepting requests and jobs."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Accept no new requests and no new jobs from now on."""
        self._begun.set()

    async def wait(self) -> None:
        """Return as soon as `begin` was called."""
        await self._begun.wait()

    def watch(self, count: Callable[[], int]) -> None:
        """Add the result of `count` to `left`."""
        self._counts.append(count)

    @property
    def left(self) -> int:
        """Number of requests and jobs that are still in progress."""
        return sum(count() for count in self._counts)
