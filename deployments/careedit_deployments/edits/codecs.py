"""Decoding of clients' images and encoding of results: off the event loop, within a time and a share of memory.

Small images in common formats are decoded and encoded in a thread: their size limits the cost to some tenths of a second,
less than the cost of a process. All others, and every HEIC and AVIF file (their decoders are the likeliest to crash), go to a
process of `processes`, which ends with its request: at the deadline, when the client leaves, or at its limit of CPU time.
No torch, no Ray: those processes import this module.
"""

from __future__ import annotations

import asyncio
import io
import mmap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Literal

from anyio import BrokenWorkerProcess, to_thread
from PIL import Image, PngImagePlugin

from careedit.errors import ImageError, InputError
from careedit.images import Limits, decode_image, decode_mask, marks_of
from careedit.provenance import Credit
from careedit.provenance.watermark import Mark, Marking
from careedit_deployments.edits.output import Output, encode
from careedit_deployments.edits.processes import CPU_S, Processes, SharedAmount, overwrite, prepare, read_all
from careedit_deployments.errors import DeadlineError, UnavailableError

if TYPE_CHECKING:
    from careedit.provenance.signing import Signing

Reading = Literal["image", "mask", "kept"]
"""How a file is read: as an image, as a mask of OpenAI's kind, or as a PNG that this server made of one and stored."""

SMALL_PIXELS = 1024 * 1024
"""Maximum number of pixels of an image that is decoded or encoded in a thread."""
SMALL_BYTES = 4 * 2**20
"""Maximum size of the file of an image that is decoded in a thread, in bytes."""
PLAIN = ("PNG", "JPEG", "WebP")
"""Formats of images that may be decoded in a thread."""
THREADS = 4
"""Maximum number of threads that decode small images, and of those that encode them; one caller can use half of each."""
DECODED_PER_S = 4e6
"""Pixels for which a process has one more second of CPU time to decode; a slow machine decodes ten times as many."""
ENCODED_PER_S = 1e6
"""The same for encoding. Lossless WebP is the slowest format; a slow machine encodes four times as many."""


@dataclass(frozen=True)
class Origin:
    """What the Content Credentials and the watermark of a result say about where it comes from."""

    credit: Credit
    """The edit, the expert set, the experts and their licences."""
    ingredient: bytes | None = None
    """The source with its own manifest, from `ingredient_of`. Default: the source is not named."""


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
    limits: Limits
    """What the decoder checks again."""

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


class Codecs:
    """The decoders and encoders of one ingress process."""

    def __init__(
        self, memory: int = 2 * 2**30, *, signing: Signing | None = None, marking: Marking | None = None
    ) -> None:
        """`memory` is the maximum for the decoded images of all requests and jobs, in bytes.

        `marking` puts a watermark into results, `signing` signs their files.
        """
        self.marking = marking
        """Marks the pixels of every result that is large enough; None: results have no watermark."""
        self.signing = signing
        """Signs every result; None: results are not signed."""
        self.memory = SharedAmount(memory, memory // 2, "holds as many images as its memory allows")
        """Memory of decoded images; a request holds its share from before decoding until its response has been sent."""
        self._processes = Processes()
        self._decoding = SharedAmount(THREADS, THREADS // 2, "decodes as many images as it can")
        self._encoding = SharedAmount(THREADS, THREADS // 2, "encodes as many images as it can")

    @asynccontextmanager
    async def warming(self) -> AsyncIterator[None]:
        """A hook of the server: start a process in the background. If that fails, the first image tries again."""
        task = asyncio.create_task(self.warm(), name="careedit-codecs")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def warm(self) -> None:
        """Start a process, so that the first large image does not wait for it."""
        await self._processes.warm()

    async def decode(self, key: str, file: PictureFile) -> Image.Image:
        """The image, for the caller `key`. Raises `InputError` and its subclasses, `OverloadedError`, `UnavailableError`.

        Cancelling stops the work: a process is killed, a thread ends by itself soon.
        """
        if file.is_small:
            async with self._decoding.hold(key, 1):
                return await to_thread.run_sync(decode, file.data, file.reading, file.limits, abandon_on_cancel=True)
        given = (file.reading, file.limits, file.pixels)
        try:
            return await self._processes.run(key, decode_exchange, file.data, *given, read=_read)
        except BrokenWorkerProcess:
            raise ImageError(
                "The image could not be decoded: its decoder crashed, or needed too much time or memory; "
                "save it again, as a PNG or a baseline JPEG."
            ) from None

    async def encode(
        self, key: str, picture: Image.Image, output: Output | None, *, ends: float, origin: Origin | None = None
    ) -> bytes:
        """The file of a result, for the caller `key`, as `output.encode` makes it, with watermark, signed; it waits for its turn.

        A server that marks or signs results needs `origin`. Cancelling stops the work, as in `decode`. Raises `DeadlineError` at the
        monotonic time `ends`, `UnavailableError`.
        """
        try:
            async with asyncio.timeout(ends - time.monotonic()) as limit:
                if self.signing is None and self.marking is None:
                    return await self._encode(key, picture, output, None)
                assert origin is not None, "a result without its origin must not leave unmarked or unsigned"
                size = picture.size if output is None else output.size
                mark = None if self.marking is None else self.marking.of(origin.credit.edit, size)
                file = await self._encode(key, picture, output, mark)
                if self.signing is None:
                    return file
                return await self._sign(self.signing, key, file, origin, watermarked=mark is not None)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineError(
                "The result was not encoded within the deadline of the edit; ask for a smaller size, fewer images, or jpeg."
            ) from None

    async def _sign(self, signing: Signing, key: str, file: bytes, origin: Origin, *, watermarked: bool) -> bytes:
        sign = partial(signing.sign, file, origin.credit, origin.ingredient, watermarked=watermarked)
        try:
            async with self._encoding.hold(key, 1, patient=True):
                return await to_thread.run_sync(sign, abandon_on_cancel=True)
        except InputError as error:  # the certificate has expired since the start: not the client's fault
            raise UnavailableError(str(error)) from None

    async def _encode(self, key: str, picture: Image.Image, output: Output | None, watermark: Mark | None) -> bytes:
        width, height = picture.size if output is None else output.size
        pixels, marked = max(picture.width * picture.height, width * height), self.signing is not None
        if pixels <= SMALL_PIXELS:
            async with self._encoding.hold(key, 1, patient=True):
                make = partial(encode, picture, output, marked=marked, watermark=watermark)
                return await to_thread.run_sync(make, abandon_on_cancel=True)
        data = await to_thread.run_sync(picture.tobytes)
        given = (picture.mode, picture.size, output, pixels, marked, watermark)
        try:
            return await self._processes.run(key, encode_exchange, data, *given, read=read_all, patient=True)
        except BrokenWorkerProcess:
            raise UnavailableError(
                "The result could not be encoded: its process was lost, or needed too much time or memory; ask for a smaller "
                "size, or try again."
            ) from None


def _read(exchange: IO[bytes], answer: tuple[str, tuple[int, int], Any]) -> Image.Image:
    mode, size, info = answer
    with mmap.mmap(exchange.fileno(), 0, access=mmap.ACCESS_READ) as pixels:
        image = Image.frombytes(mode, size, pixels)  # type: ignore[arg-type]  # any buffer will do
    image.info = info
    return image


def decode(data: bytes, reading: Reading, limits: Limits) -> Image.Image:
    """The image of a file, with its marks. Raises `InputError` and its subclasses."""
    if reading == "mask":
        return decode_mask(data, white_is_edit=False, limits=limits)
    if reading == "kept":  # decoded before; the file has the marks of that decoding
        with PngImagePlugin.PngImageFile(io.BytesIO(data)) as opened:
            kept = opened.copy()
        kept.info = dict(marks_of(kept))
        return kept
    return decode_image(data, limits=limits)


def decode_exchange(path: str, reading: Reading, limits: Limits, pixels: int) -> tuple[str, tuple[int, int], Any]:
    """Runs in a picture process: replace the file at `path` by its pixels; return mode, size and marks."""
    prepare(CPU_S + pixels / DECODED_PER_S)
    with open(path, "r+b", buffering=0) as exchange:
        image = decode(exchange.read(), reading, limits)
        overwrite(exchange, image.tobytes())
    return image.mode, image.size, image.info


def encode_exchange(
    path: str,
    mode: str,
    size: tuple[int, int],
    output: Output | None,
    pixels: int,
    marked: bool,
    watermark: Mark | None,
) -> None:
    """Runs in a picture process: replace the pixels in the file at `path` by the encoded picture."""
    prepare(CPU_S + pixels / ENCODED_PER_S)
    with open(path, "r+b", buffering=0) as exchange:
        picture = Image.frombytes(mode, size, exchange.read())
        overwrite(exchange, encode(picture, output, marked=marked, watermark=watermark))
