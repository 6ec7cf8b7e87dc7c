"""The load generator: equal requests by one client, by many at once, behind others, or at recorded times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from careedit.editor import Editor
from careedit.errors import CareEditError
from careedit.records import EditRequest, EditResult

Edit = Callable[[EditRequest], EditResult]
"""Makes one edit: `Client.edit`, or an editor's."""

Batch = Callable[[Sequence[EditRequest]], list[EditResult]]
"""Makes many edits, as fast as it can; results in the order of the requests."""

IN_FLIGHT = 100
"""Requests of a trace that wait for answers at once, at most; the client holds no more connections."""


def seconds_of(edit: Edit, request: EditRequest) -> float:
    """How long one edit takes, from call to result."""
    started = time.perf_counter()
    edit(request)
    return time.perf_counter() - started


def timed(batch: Batch, requests: Sequence[EditRequest]) -> tuple[float, list[EditResult]]:
    """How long many edits take together, and their results."""
    started = time.perf_counter()
    results = batch(requests)
    return time.perf_counter() - started, results


def by_clients(edit: Edit, clients: int) -> Batch:
    """Many edits by so many clients, each sending its next request when it has its answer."""

    def send(requests: Sequence[EditRequest]) -> list[EditResult]:
        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(edit, requests))

    return send


def in_batches(editor: Editor) -> Batch:
    """Many edits by an editor in this process, in its own batches, expert by expert, so that each is merged once."""

    def run(requests: Sequence[EditRequest]) -> list[EditResult]:
        made: dict[int, EditResult] = {}
        for expert in dict.fromkeys(str(request.expert) for request in requests):
            indices = [i for i, request in enumerate(requests) if str(request.expert) == expert]
            made.update(zip(indices, editor.edit([requests[i] for i in indices]), strict=True))
        return [made[i] for i in range(len(requests))]

    return run


@contextmanager
def behind(edit: Edit, request: EditRequest, clients: int) -> Iterator[None]:
    """While so many clients send `request` over and over; begins once the first of them has been answered.

    At the end what is on its way is waited for. Raises what sending raises.
    """
    enough, answered = threading.Event(), threading.Event()

    def keep_sending() -> None:
        try:
            while not enough.is_set():
                edit(request)
                answered.set()
        finally:
            answered.set()

    with ThreadPoolExecutor(max(1, clients)) as pool:
        sending = [pool.submit(keep_sending) for _ in range(clients)]
        try:
            if clients:
                answered.wait()
            yield
        finally:
            enough.set()
        for one in sending:
            one.result()


def replay(edit: Edit, requests: Sequence[EditRequest], arrivals: Sequence[float]) -> list[float | None]:
    """Send each request at its time, whatever became of those before, and say how long its answer took.

    `arrivals` are in seconds. An answer's time counts from the arrival that was due, so that a sender who falls behind
    hides nothing. None stands for an edit that failed or was refused.
    """
    started = time.perf_counter()

    def one(request: EditRequest, due: float) -> float | None:
        try:
            edit(request)
        except CareEditError:
            return None
        return time.perf_counter() - started - due

    with ThreadPoolExecutor(min(IN_FLIGHT, len(requests))) as pool:
        sent = []
        for request, due in zip(requests, arrivals, strict=True):
            time.sleep(max(0.0, started + due - time.perf_counter()))
            sent.append(pool.submit(one, request, due))
        return [answer.result() for answer in sent]
