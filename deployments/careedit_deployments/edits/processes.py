"""Work on pictures in processes that can be killed, and amounts that callers share.

A process of `anyio.to_process` ends with its request: at the deadline, when the client leaves, or at its limit of CPU time.
No torch, no Ray: these processes import this module.
"""

from __future__ import annotations

import asyncio
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TypeVar

from anyio import BrokenWorkerProcess, CapacityLimiter, to_process, to_thread

from careedit_deployments.errors import OverloadedError, UnavailableError

PROCESSES = max(2, min(4, os.cpu_count() or 1))
"""Maximum number of picture processes of an ingress replica; one caller can use half of them."""
PATIENCE_S = 30.0
"""Seconds that a request waits for memory and for a decoder before it gets status 429."""
RETRY_AFTER_S = 5.0
"""`Retry-After` of that response, in seconds."""
AT_ONCE_S = 1.0
"""If a process breaks within this time (seconds), it may have been dead before, so its work is tried once more."""
CPU_S = 5.0
"""CPU time that a process has for any picture, in seconds."""
MEMORY = 2 * 2**30
"""Address space that work on a picture may add to the process, in bytes."""

Made = TypeVar("Made")
Answer = TypeVar("Answer")

_ready = False


class SharedAmount:
    """An amount that callers share, such as memory; each holds at most `share` of it."""

    def __init__(self, total: int, share: int, reason: str) -> None:
        """`reason` completes the sentence "The server ..." of the error."""
        self._total, self._share, self._reason = total, share, reason
        self._held: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    @property
    def held(self) -> int:
        """The amount that all callers hold together."""
        return self._held.total()

    @asynccontextmanager
    async def hold(self, key: str, amount: int, *, patient: bool = False) -> AsyncIterator[None]:
        """Hold `amount` for the caller `key`; waits. Raises `OverloadedError` after `PATIENCE_S`, or never if `patient`."""
        try:
            async with asyncio.timeout(None if patient else PATIENCE_S), self._changed:
                await self._changed.wait_for(lambda: self._has_room(key, amount))
                self._held[key] += amount
        except TimeoutError:
            raise OverloadedError(
                f"The server {self._reason}; try again in a few seconds.", retry_after=RETRY_AFTER_S
            ) from None
        try:
            yield
        finally:
            self._held[key] -= amount
            if not self._held[key]:
                del self._held[key]
            await asyncio.shield(self._notify())

    def _has_room(self, key: str, amount: int) -> bool:
        return self.held + amount <= self._total and self._held[key] + amount <= self._share

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class Processes:
    """The picture processes of one ingress process. Cancelling a call kills its process."""

    def __init__(self) -> None:
        self._shares = SharedAmount(PROCESSES, PROCESSES // 2, "works on as many images as it can")
        self._slots = CapacityLimiter(PROCESSES)

    async def warm(self) -> None:
        """Start a process, so that the first large image does not wait for it."""
        await to_process.run_sync(prepare, limiter=self._slots)

    async def run(
        self,
        key: str,
        work: Callable[..., Answer],
        data: bytes,
        *args: object,
        read: Callable[[IO[bytes], Answer], Made],
        patient: bool = False,
    ) -> Made:
        """Run `work(path, *args)` for the caller `key`, where `path` is a file with `data` that the work overwrites.

        `read` makes the result of that file and the work's answer. Raises `BrokenWorkerProcess` if the process crashes or has
        used its CPU time, `UnavailableError` if none can be started, and `OverloadedError` as `SharedAmount.hold`.
        """
        async with self._shares.hold(key, 1, patient=patient):
            try:
                exchange, path = _exchange()
                with exchange:
                    for last in (False, True):
                        await to_thread.run_sync(overwrite, exchange, data)
                        started = time.monotonic()
                        try:
                            answer = await to_process.run_sync(work, path, *args, cancellable=True, limiter=self._slots)
                            return await to_thread.run_sync(read, exchange, answer)
                        except BrokenWorkerProcess:
                            if last or time.monotonic() - started > AT_ONCE_S:
                                raise
            except OSError as error:
                reason = error.strerror
                raise UnavailableError(f"No process for the image could be started ({reason}); try again.") from None
        raise AssertionError


def _exchange() -> tuple[IO[bytes], str]:
    """A file and the path at which a process opens it: in memory, or on disk if the system has no memory files."""
    if hasattr(os, "memfd_create"):
        memory = open(os.memfd_create("careedit-picture"), "r+b", buffering=0)  # noqa: SIM115 - the caller closes it
        return memory, f"/proc/{os.getpid()}/fd/{memory.fileno()}"
    file = tempfile.NamedTemporaryFile(prefix="careedit-picture-", buffering=0)  # noqa: SIM115 - as above
    return file, file.name


def overwrite(exchange: IO[bytes], data: bytes) -> None:
    """Replace the content of a file. It is memory that two processes share: a pipe would cost more than the decoding itself."""
    exchange.seek(0)
    exchange.truncate()
    view = memoryview(data)
    while view:
        view = view[exchange.write(view) :]


def read_all(exchange: IO[bytes], _answer: object = None) -> bytes:
    """The content of a file, from its beginning."""
    exchange.seek(0)
    return exchange.read()


def prepare(cpu_s: float = CPU_S) -> int:
    """Runs in a picture process: limit it to `cpu_s` more seconds of CPU time, after which the kernel ends it. Returns its id."""
    global _ready
    if not _ready:
        from pi_heif import options
        from PIL import AvifImagePlugin

        options.DECODE_THREADS = AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        statm = Path("/proc/self/statm")
        if statm.exists():  # Linux; macOS has no limit on address space
            held = int(statm.read_text().split()[0]) * resource.getpagesize()
            _lower(resource.RLIMIT_AS, held + MEMORY)
        _ready = True
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + cpu_s) + 1)
    return os.getpid()


def _lower(which: int, soft: int) -> None:
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
