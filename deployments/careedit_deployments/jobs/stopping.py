"""`Stopping`: whether an ingress replica is about to end. What works beside its routes and in its streams listens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Stopping:
    """Of one replica; lives on its event loop."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._counts: list[Callable[[], int]] = []

    @property
    def begun(self) -> bool:
        """Whether the replica takes no new requests and no new jobs."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Take no new requests and no new jobs from now on."""
        self._begun.set()

    async def wait(self) -> None:
        """Return when it has begun."""
        await self._begun.wait()

    def watch(self, count: Callable[[], int]) -> None:
        """Add `count` to what `left` counts."""
        self._counts.append(count)

    @property
    def left(self) -> int:
        """Requests and jobs that the replica still has in progress."""
        return sum(count() for count in self._counts)
