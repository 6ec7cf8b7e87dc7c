"""One poller that hands claims to tasks: used for jobs and for webhooks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from careedit.errors import CareEditError

logger = logging.getLogger(__name__)

Claim = TypeVar("Claim")


async def wait_for(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for an event, but not longer than `timeout_s` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


class Pool(Generic[Claim]):
    """Claims work while there is a free place, and waits when there is none to be had."""

    def __init__(
        self,
        claim: Callable[[], Awaitable[Claim | None]],
        work: Callable[[Claim], Awaitable[None]],
        listen: Callable[[], asyncio.Event],
        *,
        places: int,
        poll_s: float = 1.0,
    ) -> None:
        """`work` must end when it is cancelled, and tidy up behind itself."""
        self._claim, self._work, self._listen = claim, work, listen
        self._places = asyncio.Semaphore(places)
        self._poll_s = poll_s
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_progress(self) -> int:
        """How many are worked on."""
        return len(self._tasks)

    async def run(self) -> None:
        """Claim and hand out until cancelled; what is in hand goes on."""
        while True:
            await self._places.acquire()
            self._begin(await self._next())

    async def drain(self, grace_s: float) -> None:
        """Wait for what is in hand, then cancel it and wait for its end."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _begin(self, claim: Claim) -> None:
        task = asyncio.create_task(self._hold(claim))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _next(self) -> Claim:
        while True:
            event = self._listen()
            claiming = asyncio.ensure_future(self._try())
            try:
                claim = await asyncio.shield(claiming)
            except asyncio.CancelledError:
                # What is claimed in this very moment counts as in hand: `drain` sees to it.
                if (late := await claiming) is not None:
                    self._begin(late)
                raise
            if claim is not None:
                return claim
            await wait_for(event, self._poll_s)

    async def _try(self) -> Claim | None:
        try:
            return await self._claim()
        except CareEditError as error:  # the database is away: what is in it waits
            logger.warning("No work could be claimed: %s", error)
        except Exception:
            logger.exception("No work could be claimed, by an error that was not foreseen.")
        return None

    async def _hold(self, claim: Claim) -> None:
        try:
            await self._work(claim)
        except CareEditError as error:  # its lease runs out, and somebody takes it up
            logger.warning("Work was left behind: %s", error)
        except Exception:
            logger.exception("Work was left behind by an error that was not foreseen.")
        finally:
            self._places.release()
