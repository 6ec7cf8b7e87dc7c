"""The load generator: requests by one client, by many clients, under load, or at recorded times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from careedit.editor import Editor
from careedit.errors import CareEditError
from careedit.records import EditRequest, EditResult

T = TypeVar("T")

Edit = Callable[[EditRequest], EditResult]
"""Makes one edit: `Client.edit`, or an editor's."""

Batch = Callable[[Sequence[EditRequest]], list[EditResult]]
"""Makes many edits as fast as possible; results are in the order of the requests."""

IN_FLIGHT = 100
"""Maximum number of trace requests in flight; the client has no more connections."""


def seconds_of(edit: Edit, request: EditRequest) -> float:
    """Seconds of one edit, from call to result."""
    started = time.perf_counter()
    edit(request)
    return time.perf_counter() - started


def timed(batch: Batch, requests: Sequence[EditRequest]) -> tuple[float, list[EditResult]]:
    """Seconds of a batch of edits, and their results."""
    started = time.perf_counter()
    results = batch(requests)
    return time.perf_counter() - started, results


def by_clients(edit: Edit, clients: int) -> Batch:
    """A batch by `clients` clients. Each sends its next request when it has the answer to the previous one."""

    def send(requests: Sequence[EditRequest]) -> list[EditResult]:
        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(edit, requests))

    return send


def in_batches(editor: Editor) -> Batch:
    """A batch by an editor in this process, expert by expert, so that each expert is merged once."""

    def run(requests: Sequence[EditRequest]) -> list[EditResult]:
        made: dict[int, EditResult] = {}
        for expert in dict.fromkeys(str(request.expert) for request in requests):
            indices = [i for i, request in enumerate(requests) if str(request.expert) == expert]
            made.update(zip(indices, editor.edit([requests[i] for i in indices]), strict=True))
        return [made[i] for i in range(len(requests))]

    return run


@contextmanager
def behind(edit: Edit, request: EditRequest, clients: int) -> Iterator[None]:
    """Let `clients` clients send `request` repeatedly during the block, which starts after the first answer.

    At the end, requests in flight are awaited. Raises what sending raises.
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


def replay(send: Callable[[T], object], requests: Sequence[T], arrivals: Sequence[float]) -> list[float | None]:
    """`send` each request at its time, and return the seconds until its answer; None for a failed or rejected edit.

    `arrivals` are in seconds. The time of an answer counts from the planned arrival, so a late sender hides nothing.
    """
    started = time.perf_counter()

    def one(request: T, due: float) -> float | None:
        try:
            send(request)
        except CareEditError:
            return None
        return time.perf_counter() - started - due

    with ThreadPoolExecutor(min(IN_FLIGHT, len(requests))) as pool:
        sent = []
        for request, due in zip(requests, arrivals, strict=True):
            time.sleep(max(0.0, started + due - time.perf_counter()))
            sent.append(pool.submit(one, request, due))
        return [answer.result() for answer in sent]
