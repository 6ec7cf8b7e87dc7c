"""One judge for many callers: what comes while it is busy is asked in one go as soon as it is free."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import islice

from careedit.scoring import Score, Scorer, ScoreRequest

MOST = 32
"""Pictures that are put together; a single call may bring more."""


@dataclass(eq=False)
class _Call:
    requests: Sequence[ScoreRequest]
    answer: asyncio.Future[list[Score]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class BatchedScorer:
    """Puts concurrent calls of a scorer that bears one caller at a time into batches. Nobody waits for company."""

    def __init__(self, scorer: Scorer, workers: Executor) -> None:
        """`scorer` is called in `workers`."""
        self._scorer, self._workers = scorer, workers
        self._waiting: list[_Call] = []
        self._judging: asyncio.Task[None] | None = None

    async def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in their order. Raises what the scorer raises at these requests."""
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
                except Exception as error:  # noqa: BLE001 - told to whoever asked
                    if len(calls) == 1:
                        _fail(calls[0], error)
                        continue
                    for call in calls:  # one call's failure is not its neighbours'
                        try:
                            await self._answer([call])
                        except Exception as alone:  # noqa: BLE001
                            _fail(call, alone)
        finally:
            self._judging = None

    def _next(self) -> list[_Call]:
        """The calls of the next batch; those that were given up are dropped."""
        waiting = [call for call in self._waiting if not call.answer.done()]
        size, count = 0, 0
        for call in waiting:
            size += len(call.requests)
            if count and size > MOST:
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
