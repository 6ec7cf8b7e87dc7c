"""Decoding of foreign pictures: in processes that can be killed, within a budget of memory, and a share of it per caller.

Small pictures of the plain formats are decoded in a thread: a header that passed bounds their cost to some tenths of a second, and
a process costs more than they do. Everything else, and every HEIC and AVIF file (their decoders are the likeliest to crash), goes
to a process of `anyio.to_process`, which ends with its request: at the deadline, when the client leaves, or at the limit of CPU time.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO

from anyio import BrokenWorkerProcess, CapacityLimiter, to_process, to_thread
from PIL import Image

from careedit.errors import ImageError
from careedit.images import Limits
from careedit_deployments.errors import OverloadedError, UnavailableError
from careedit_deployments.http.decoder import Reading, decode, decode_exchange, prepare

SMALL_PIXELS = 1024 * 1024
"""Pixels up to which a picture may be decoded in a thread."""
SMALL_BYTES = 4 * 2**20
"""Bytes of its file, likewise."""
PLAIN = ("PNG", "JPEG", "WebP")
"""Formats that may be decoded in a thread."""
PROCESSES = max(2, min(4, os.cpu_count() or 1))
"""Decoder processes of one ingress replica; a caller has half of them at most."""
THREADS = 4
"""Threads for small pictures; a caller has half of them at most."""
PATIENCE_S = 30.0
"""Seconds that a request waits for memory, and for a decoder, before it is told to come back."""
RETRY_AFTER_S = 5.0
"""Seconds after which it may do so."""
AT_ONCE_S = 1.0
"""Seconds within which a decoder that breaks may have been dead before: its picture gets another one."""


@dataclass(frozen=True)
class PictureFile:
    """A file that passed its header's check."""

    data: bytes
    """The file."""
    param: str
    """The field that it came in."""
    reading: Reading
    """How it is decoded."""
    kind: str
    """Its format."""
    size: tuple[int, int]
    """Width and height that its header states."""

    @property
    def pixels(self) -> int:
        """Pixels that it will have."""
        return self.size[0] * self.size[1]

    @property
    def memory(self) -> int:
        """Bytes that it takes decoded: Pillow holds four per colour pixel, one per mask pixel."""
        return self.pixels * (1 if self.reading == "mask" else 4)

    @property
    def is_small(self) -> bool:
        """Whether it is decoded in a thread."""
        return self.kind in PLAIN and self.pixels <= SMALL_PIXELS and len(self.data) <= SMALL_BYTES


class Pool:
    """An amount of something that callers share; each holds `share` of it at most."""

    def __init__(self, total: int, share: int, what: str) -> None:
        """`what` ends a sentence: "The server ..."."""
        self._total, self._share, self._what = total, share, what
        self._held: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    @property
    def held(self) -> int:
        """What all callers hold."""
        return self._held.total()

    @asynccontextmanager
    async def hold(self, key: str, amount: int) -> AsyncIterator[None]:
        """Hold `amount` for the caller `key`; waits. Raises `OverloadedError` after `PATIENCE_S`."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._changed:
                await self._changed.wait_for(lambda: self._has_room(key, amount))
                self._held[key] += amount
        except TimeoutError:
            raise OverloadedError(f"The server {self._what}; come back soon.", retry_after=RETRY_AFTER_S) from None
        try:
            yield
        finally:
            self._held[key] -= amount
            if not self._held[key]:
                del self._held[key]
            await asyncio.shield(self._tell())

    def _has_room(self, key: str, amount: int) -> bool:
        return self.held + amount <= self._total and self._held[key] + amount <= self._share

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class Decoding:
    """The decoders of one ingress process."""

    def __init__(self, limits: Limits, memory: int) -> None:
        """`limits` are of one picture; `memory` is the bytes of decoded pictures that all requests may hold together."""
        self._limits = limits
        self.memory = Pool(memory, memory // 2, "holds as many pictures as its memory allows")
        """What requests hold from before their pictures are decoded until they are answered."""
        self._processes = Pool(PROCESSES, PROCESSES // 2, "decodes as many pictures as it can")
        self._threads = Pool(THREADS, THREADS // 2, "decodes as many pictures as it can")
        self._slots = CapacityLimiter(PROCESSES)

    async def warm(self) -> None:
        """Start a decoder process, so that the first large picture does not wait for it."""
        await to_process.run_sync(prepare, limiter=self._slots)

    @asynccontextmanager
    async def warming(self) -> AsyncIterator[None]:
        """`warm` beside whatever goes on; a hook of the server. One that fails is tried again by the first picture."""
        task = asyncio.create_task(self.warm(), name="careedit-decoder")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def decode(self, key: str, file: PictureFile) -> Image.Image:
        """The picture, for the caller `key`. Raises `InputError` and kin, `OverloadedError`, `UnavailableError`.

        Cancelling stops the work: a process is killed, a thread ends by itself soon.
        """
        if file.is_small:
            async with self._threads.hold(key, 1):
                return await to_thread.run_sync(decode, file.data, file.reading, self._limits, abandon_on_cancel=True)
        async with self._processes.hold(key, 1):
            return await self._in_process(file)

    async def _in_process(self, file: PictureFile) -> Image.Image:
        try:
            exchange, path = _exchange()
            with exchange:
                for last in (False, True):
                    await to_thread.run_sync(_write, exchange, file.data)
                    started = time.monotonic()
                    try:
                        mode, size, info = await to_process.run_sync(
                            decode_exchange,
                            path,
                            file.reading,
                            self._limits,
                            file.pixels,
                            cancellable=True,
                            limiter=self._slots,
                        )
                        return await to_thread.run_sync(_read, exchange, mode, size, info)
                    except BrokenWorkerProcess:
                        if last or time.monotonic() - started > AT_ONCE_S:
                            raise ImageError(
                                "The picture could not be decoded: its decoder crashed, or needed too much time or memory; "
                                "save it again, as a PNG or an ordinary JPEG."
                            ) from None
        except OSError as error:
            raise UnavailableError(f"No decoder could be started ({error.strerror}); try again.") from None
        raise AssertionError


def _exchange() -> tuple[IO[bytes], str]:
    """A file of bytes and the path at which a decoder process opens it: in memory, or on disk where the system has no such files."""
    if hasattr(os, "memfd_create"):
        memory = open(os.memfd_create("careedit-picture"), "r+b", buffering=0)  # noqa: SIM115 - the caller closes it
        return memory, f"/proc/{os.getpid()}/fd/{memory.fileno()}"
    file = tempfile.NamedTemporaryFile(prefix="careedit-picture-", buffering=0)  # noqa: SIM115 - as above
    return file, file.name


def _write(exchange: IO[bytes], data: bytes) -> None:
    exchange.seek(0)
    exchange.truncate()
    view = memoryview(data)
    while view:
        view = view[exchange.write(view) :]


def _read(exchange: IO[bytes], mode: str, size: tuple[int, int], info: dict[str, object]) -> Image.Image:
    with mmap.mmap(exchange.fileno(), 0, access=mmap.ACCESS_READ) as pixels:
        image = Image.frombytes(mode, size, pixels)  # type: ignore[arg-type]  # any buffer will do
    image.info = info  # type: ignore[assignment]
    return image
