"""Decoding of clients' images: in processes that can be killed, within a memory budget of which each caller gets a share.

Small images in common formats are decoded in a thread: their checked header limits the cost to some tenths of a second, less
than the cost of a process. All other images, and every HEIC and AVIF file (their decoders are the likeliest to crash), go to
a process of `anyio.to_process`. It ends with its request: at the deadline, when the client leaves, or at the limit of CPU time.
No torch, no Ray: decoder processes import this module.
"""

from __future__ import annotations

import asyncio
import io
import mmap
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from anyio import BrokenWorkerProcess, CapacityLimiter, to_process, to_thread
from PIL import Image, PngImagePlugin

from careedit.errors import ImageError
from careedit.images import Limits, decode_image, decode_mask, marks_of
from careedit_deployments.errors import OverloadedError, UnavailableError

Reading = Literal["image", "mask", "kept"]
"""How a file is read: as an image, as a mask of OpenAI's kind, or as a PNG that this server stored."""

SMALL_PIXELS = 1024 * 1024
"""Maximum number of pixels of an image that is decoded in a thread."""
SMALL_BYTES = 4 * 2**20
"""Maximum size of the file of an image that is decoded in a thread, in bytes."""
PLAIN = ("PNG", "JPEG", "WebP")
"""Formats of images that may be decoded in a thread."""
PROCESSES = max(2, min(4, os.cpu_count() or 1))
"""Maximum number of decoder processes of an ingress replica; one caller can use half of them."""
THREADS = 4
"""Maximum number of threads that decode small images; one caller can use half of them."""
PATIENCE_S = 30.0
"""Seconds that a request waits for memory and for a decoder before it gets status 429."""
RETRY_AFTER_S = 5.0
"""`Retry-After` of that response, in seconds."""
AT_ONCE_S = 1.0
"""If a decoder breaks within this time (seconds), it may have been dead before, so its image is tried once more."""
CPU_S = 5.0
"""CPU time that a decoder process has for any image, in seconds."""
PIXELS_PER_S = 4e6
"""Pixels for which a decoder process has one more second of CPU time; a slow machine decodes ten times as many."""
MEMORY = 2 * 2**30
"""Address space that decoding may add to the process, in bytes."""

_ready = False


@dataclass(frozen=True)
class PictureFile:
    """An image file whose header passed the check."""

    data: bytes
    """The content of the file."""
    param: str
    """Name of the request field that has the file."""
    reading: Reading
    """How the file is decoded."""
    kind: str
    """Format of the file, for example "PNG"."""
    size: tuple[int, int]
    """Width and height according to the header, in pixels."""

    @property
    def pixels(self) -> int:
        """Number of pixels of the decoded image."""
        return self.size[0] * self.size[1]

    @property
    def memory(self) -> int:
        """Memory of the decoded image, in bytes: Pillow holds four per color pixel, one per mask pixel."""
        return self.pixels * (1 if self.reading == "mask" else 4)

    @property
    def is_small(self) -> bool:
        """Whether the file is decoded in a thread."""
        return self.kind in PLAIN and self.pixels <= SMALL_PIXELS and len(self.data) <= SMALL_BYTES


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
    async def hold(self, key: str, amount: int) -> AsyncIterator[None]:
        """Hold `amount` for the caller `key`; waits. Raises `OverloadedError` after `PATIENCE_S`."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._changed:
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


class Decoding:
    """The decoders of one ingress process."""

    def __init__(self, limits: Limits, memory: int) -> None:
        """`limits` apply to one image; `memory` is the maximum for the decoded images of all requests, in bytes."""
        self._limits = limits
        self.memory = SharedAmount(memory, memory // 2, "holds as many images as its memory allows")
        """Memory of decoded images; a request holds its share from before decoding until its response has been sent."""
        self._processes = SharedAmount(PROCESSES, PROCESSES // 2, "decodes as many images as it can")
        self._threads = SharedAmount(THREADS, THREADS // 2, "decodes as many images as it can")
        self._slots = CapacityLimiter(PROCESSES)

    async def warm(self) -> None:
        """Start a decoder process, so that the first large image does not wait for it."""
        await to_process.run_sync(prepare, limiter=self._slots)

    @asynccontextmanager
    async def warming(self) -> AsyncIterator[None]:
        """A hook of the server: `warm` in the background. If it fails, the first image tries again."""
        task = asyncio.create_task(self.warm(), name="careedit-decoder")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def decode(self, key: str, file: PictureFile) -> Image.Image:
        """The image, for the caller `key`. Raises `InputError` and its subclasses, `OverloadedError`, `UnavailableError`.

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
                                "The image could not be decoded: its decoder crashed, or needed too much time or memory; "
                                "save it again, as a PNG or a baseline JPEG."
                            ) from None
        except OSError as error:
            raise UnavailableError(f"No decoder could be started ({error.strerror}); try again.") from None
        raise AssertionError


def _exchange() -> tuple[IO[bytes], str]:
    """A file and the path at which a decoder process opens it: in memory, or on disk if the system has no memory files."""
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


def decode(data: bytes, reading: Reading, limits: Limits) -> Image.Image:
    """The image of a file, with its marks. Raises `InputError` and its subclasses."""
    if reading == "mask":
        return decode_mask(data, white_is_edit=False, limits=limits)
    image = decode_image(data, limits=limits)
    if reading == "kept":  # decoding removed the marks of the first decoding; the stored file has them
        with PngImagePlugin.PngImageFile(io.BytesIO(data)) as opened:
            image.info |= marks_of(opened)
    return image


def decode_exchange(path: str, reading: Reading, limits: Limits, pixels: int) -> tuple[str, tuple[int, int], Any]:
    """Runs in a decoder process: replace the file at `path` by its pixels; return mode, size and marks.

    `path` is memory that the parent shares: a pipe would cost more than the decoding itself.
    """
    prepare(CPU_S + pixels / PIXELS_PER_S)
    with open(path, "r+b", buffering=0) as exchange:
        image = decode(exchange.read(), reading, limits)
        exchange.seek(0)
        view = memoryview(image.tobytes())
        while view:
            view = view[exchange.write(view) :]
        exchange.truncate()
    return image.mode, image.size, image.info


def prepare(cpu_s: float = CPU_S) -> int:
    """Runs in a decoder process: limit it to `cpu_s` more seconds of CPU time, after which the kernel ends it. Returns its id."""
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
