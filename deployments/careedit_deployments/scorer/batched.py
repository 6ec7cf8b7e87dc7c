"""One judge for many callers: requests that arrive while it is busy form the next batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import islice

from careedit.scoring import Score, Scorer, ScoreRequest

MAX_BATCH = 32
"""Maximum number of requests that are combined in a batch. A single call may have more."""


@dataclass(eq=False)
class _Call:
    requests: Sequence[ScoreRequest]
    answer: asyncio.Future[list[Score]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class BatchedScorer:
    """Combines concurrent calls of a scorer that supports one caller at a time. A call never waits for others to join it."""

    def __init__(self, scorer: Scorer, workers: Executor) -> None:
        """Calls `scorer` in `workers`."""
        self._scorer, self._workers = scorer, workers
        self._waiting: list[_Call] = []
        self._judging: asyncio.Task[None] | None = None

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in their order. Raises what the scorer raises for these requests."""
        call = _Call(requests)
        self._waiting.append(call)
        if self._judging is None:
            self._judging = asyncio.create_task(self._judge())
        return await call.answer

    async def _judge(self) -> None:
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
            self._judging = None

    def _next(self) -> list[_Call]:
        """The calls of the next batch, without cancelled ones."""
        waiting = [call for call in self._waiting if not call.answer.done()]
        size, count = 0, 0
        for call in waiting:
            size += len(call.requests)
            if count and size > MAX_BATCH:
                break
            count += 1
        self._waiting = waiting[count:]
        return waiting[:count]

    async def _answer(self, calls: Sequence[_Call]) -> None:
        asked = [request for call in calls for request in call.requests]
        loop = asyncio.get_running_loop()
        scores = iter(await loop.run_in_executor(self._workers, lambda: list(self._scorer.score(asked))))
        for call in calls:
            mine = list(islice(scores, len(call.requests)))
            if not call.answer.done():
                call.answer.set_result(mine)


def _fail(call: _Call, error: Exception) -> None:
    if not call.answer.done():
        call.answer.set_exception(error)
