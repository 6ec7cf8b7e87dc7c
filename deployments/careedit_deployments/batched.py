"""One model for many callers: requests that arrive while it is busy form the next batch; and whether it still works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from careedit_deployments.errors import UnavailableError

MAX_FAILURES = 3
"""Number of failed calls in a row after which a replica reports that it is unhealthy."""

Request = TypeVar("Request")
Answer = TypeVar("Answer")
T = TypeVar("T")


@dataclass(eq=False)
class _Call(Generic[Request, Answer]):
    requests: Sequence[Request]
    answer: asyncio.Future[list[Answer]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batched(Generic[Request, Answer]):
    """Combines concurrent calls of a model that supports one caller at a time. A call never waits for others to join it."""

    def __init__(
        self, work: Callable[[Sequence[Request]], Sequence[Answer]], workers: Executor, *, max_batch: int
    ) -> None:
        """Calls `work` in `workers` with up to `max_batch` requests; a single call may have more."""
        self._work, self._workers, self._max_batch = work, workers, max_batch
        self._waiting: list[_Call[Request, Answer]] = []
        self._working: asyncio.Task[None] | None = None

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer per request, in their order. Raises what `work` raises for these requests."""
        call: _Call[Request, Answer] = _Call(requests)
        self._waiting.append(call)
        if self._working is None:
            self._working = asyncio.create_task(self._run())
        return await call.answer

    async def _run(self) -> None:
        try:
            while calls := self._next():
                try:
                    await self._answer(calls)
                except Exception as error:  # noqa: BLE001 - raised in the call
                    if len(calls) == 1:
                        _fail(calls[0], error)
                        continue
                    for call in calls:  # one bad call must not fail the others
                        try:
                            await self._answer([call])
                        except Exception as alone:  # noqa: BLE001
                            _fail(call, alone)
        finally:
            self._working = None

    def _next(self) -> list[_Call[Request, Answer]]:
        """The calls of the next batch, without cancelled ones."""
        waiting = [call for call in self._waiting if not call.answer.done()]
        size, count = 0, 0
        for call in waiting:
            size += len(call.requests)
            if count and size > self._max_batch:
                break
            count += 1
        self._waiting = waiting[count:]
        return waiting[:count]

    async def _answer(self, calls: Sequence[_Call[Request, Answer]]) -> None:
        asked = [request for call in calls for request in call.requests]
        loop = asyncio.get_running_loop()
        answers = iter(await loop.run_in_executor(self._workers, lambda: list(self._work(asked))))
        for call in calls:
            mine = list(islice(answers, len(call.requests)))
            if not call.answer.done():
                call.answer.set_result(mine)


class Health:
    """Whether a replica's model still works: it fails when several calls in a row failed, or when its thread is stuck."""

    def __init__(self, what: str, workers: Executor, timeout: float) -> None:
        """`what` names the model in messages; `timeout`: seconds that its thread may be busy with one call."""
        self._what, self._workers, self._timeout = what, workers, timeout
        self._failures = 0

    async def watch(self, answer: Awaitable[T]) -> T:
        """The answer of a call, whose success or failure is counted."""
        try:
            found = await answer
        except Exception:
            self._failures += 1
            raise
        self._failures = 0
        return found

    async def check(self) -> None:
        """Raise `UnavailableError` if the model is stuck, or failed several times in a row."""
        if self._failures >= MAX_FAILURES:
            raise UnavailableError(
                f"The {self._what} has failed {self._failures} times in a row; the replica is restarted."
            )
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.run_in_executor(self._workers, int), self._timeout)
        except TimeoutError:
            raise UnavailableError(
                f"The {self._what} has been busy for {self._timeout:g} seconds; it is stuck."
            ) from None


def _fail(call: _Call[Request, Answer], error: Exception) -> None:
    if not call.answer.done():
        call.answer.set_exception(error)
