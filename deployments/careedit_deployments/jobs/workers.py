"""A poller that claims work and runs it in tasks; used for jobs and for webhooks."""

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
    """Wait for an event, but at most `timeout_s` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


class Pool(Generic[Claim]):
    """Claims work while fewer than `places` tasks run, and waits while no work is due."""

    def __init__(
        self,
        claim: Callable[[], Awaitable[Claim | None]],
        work: Callable[[Claim], Awaitable[None]],
        subscribe: Callable[[], asyncio.Event],
        *,
        places: int,
        poll_s: float = 1.0,
    ) -> None:
        """`work` must end when it is cancelled, and release its claim. `poll_s`: seconds between two tries without an event."""
        self._claim, self._work, self._subscribe = claim, work, subscribe
        self._places = asyncio.Semaphore(places)
        self._poll_s = poll_s
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_progress(self) -> int:
        """Number of claims whose work is running."""
        return len(self._tasks)

    async def run(self) -> None:
        """Claim work and start it until cancelled. Work in progress continues."""
        while True:
            await self._places.acquire()
            self._start(await self._next())

    async def drain(self, grace_s: float) -> None:
        """Wait `grace_s` seconds for the work in progress, then cancel it and wait for its end."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _start(self, claim: Claim) -> None:
        task = asyncio.create_task(self._run_claim(claim))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _next(self) -> Claim:
        while True:
            event = self._subscribe()
            claiming = asyncio.ensure_future(self._claim_safely())
            try:
                claim = await asyncio.shield(claiming)
            except asyncio.CancelledError:
                # A claim that succeeds at this moment counts as in progress: `drain` handles it.
                if (late := await claiming) is not None:
                    self._start(late)
                raise
            if claim is not None:
                return claim
            await wait_for(event, self._poll_s)

    async def _claim_safely(self) -> Claim | None:
        try:
            return await self._claim()
        except CareEditError as error:  # the database does not answer; its jobs wait
            logger.warning("No work could be claimed: %s", error)
        except Exception:
            logger.exception("No work could be claimed, because of an unexpected error.")
        return None

    async def _run_claim(self, claim: Claim) -> None:
        try:
            await self._work(claim)
        except CareEditError as error:  # its lease expires, and another worker claims it
            logger.warning("Work was not finished: %s", error)
        except Exception:
            logger.exception("Work was not finished, because of an unexpected error.")
        finally:
            self._places.release()
