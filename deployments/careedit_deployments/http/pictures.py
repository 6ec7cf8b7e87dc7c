"""Images of a request: read from text, checked by their headers and together, then decoded. They hold memory until the
response is sent."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import unquote_to_bytes

from PIL import Image
from starlette.requests import Request

from careedit.errors import ImageError, InputError
from careedit.images import inspect_picture
from careedit_deployments.edits.codecs import Codecs, PictureFile, Reading
from careedit_deployments.errors import DeadlineError, FieldError, TooExpensiveError
from careedit_deployments.http.limits import picture_limits
from careedit_deployments.http.services import caller_of, services_of
from careedit_deployments.listening import Limits

_HELD = "careedit.pictures"

MAX_ESCAPED = 2**20
"""Maximum number of characters of a percent-encoded data URL, which Python decodes slowly. Base64 has no such limit."""

_SPACES = b"\t\n\f\r "
_CODES = {code: sign for sign in "+/=-_\t\n\f\r " for code in (f"%{ord(sign):02X}", f"%{ord(sign):02x}")}
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_DATA = re.compile(r"\s*data:", re.IGNORECASE)
_BASE64 = re.compile(r";[ ]*base64$", re.IGNORECASE)


def is_data_url(text: str) -> bool:
    """Whether `text` is a data URL."""
    return _DATA.match(text) is not None


def bytes_of(text: str) -> bytes:
    """The bytes of a data URL or of bare base64. Raises `ValueError`, whose text is a sentence.

    Reads them as browsers do (WHATWG Fetch, "data: URLs"; Infra, "forgiving-base64"): white space, missing padding, the
    URL-safe alphabet, `data:` in capitals, parameters of the media type, and percent-encoding are accepted.
    """
    if not is_data_url(text):
        return _decode_base64(text)
    head, comma, body = text.partition(",")
    if not comma:
        raise ValueError("The data URL has no comma; write data:image/png;base64,...")
    is_base64 = _BASE64.search(head.strip()) is not None
    if is_base64 and "%" in body:
        for code, sign in _CODES.items():
            body = body.replace(code, sign)
    if "%" in body:
        if len(body) > MAX_ESCAPED:
            raise ValueError("The data URL is too long for percent-encoding; write data:image/png;base64,...")
        data = unquote_to_bytes(body)
        return _decode_base64(data.decode("latin-1")) if is_base64 else data
    if is_base64:
        return _decode_base64(body)
    raise ValueError("The data URL is not base64; write data:image/png;base64,...")


def _decode_base64(text: str) -> bytes:
    try:
        data = text.encode("ascii").translate(_URL_SAFE, delete=_SPACES)
    except UnicodeEncodeError:
        raise ValueError("The image is not base64; encode the whole file.") from None
    if len(data) % 4 == 0 and data.endswith(b"="):
        data = data[: -2 if data.endswith(b"==") else -1]
    if len(data) % 4 == 1 or b"=" in data:
        raise ValueError("The image is not base64, or its end is missing; encode the whole file.")
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error:
        raise ValueError("The image is not base64; encode the whole file.") from None


async def release_pictures(request: Request) -> AsyncIterator[None]:
    """A dependency of every route: frees the memory of its images when the response has been sent or has failed."""
    async with AsyncExitStack() as held:
        request.scope[_HELD] = held
        yield


holding_pictures = asynccontextmanager(release_pictures)
"""`release_pictures` as a context, for a request that no route handles."""


def inspect(data: bytes, param: str, limits: Limits, reading: Reading = "image") -> PictureFile:
    """A file whose header passed the check, for `decode_pictures`. Raises `FieldError` for the field `param`."""
    noun = "mask" if reading == "mask" else "image"
    allowed = picture_limits(limits)
    try:
        kind, size = inspect_picture(data, noun, limits=allowed)
    except InputError as error:
        raise _field_error(error, param, reading) from None
    return PictureFile(data, param, reading, kind, size, allowed)


def check_together(files: Sequence[PictureFile], limits: Limits) -> None:
    """Raise `TooExpensiveError` if the images of a request together have more pixels than the limit."""
    pixels = sum(file.pixels for file in files)
    if pixels > limits.max_request_pixels:
        largest = max(files, key=lambda file: file.pixels)
        raise TooExpensiveError(
            f"The {len(files)} images of the request have {pixels:,} pixels together; the limit is {limits.max_request_pixels:,}, so "
            "send smaller or fewer images.",
            field=largest.param,
        )


async def hold_memory(request: Request, files: Sequence[PictureFile]) -> None:
    """Reserve the memory of the decoded `files` until the response has been sent. Raises `OverloadedError`."""
    held: AsyncExitStack = request.scope[_HELD]
    memory = sum(file.memory for file in files)
    await held.enter_async_context(services_of(request).codecs.memory.hold(caller_of(request).id, memory))


async def decode_pictures(request: Request, files: Sequence[PictureFile]) -> list[Image.Image]:
    """The images, decoded one after the other within the deadline. Raises `FieldError`, `OverloadedError`, `DeadlineError`."""
    codecs, limit = services_of(request).codecs, services_of(request).config.limits.deadline_s
    try:
        async with asyncio.timeout(limit):
            return [await _decode(codecs, caller_of(request).id, file) for file in files]
    except TimeoutError:
        raise DeadlineError(
            f"Decoding the images took longer than the deadline of {limit:g} s; send smaller images."
        ) from None


async def _decode(codecs: Codecs, key: str, file: PictureFile) -> Image.Image:
    try:
        return await codecs.decode(key, file)
    except InputError as error:
        raise _field_error(error, file.param, file.reading) from None


def _field_error(error: InputError, param: str, reading: Reading) -> FieldError:
    code = "invalid_image" if isinstance(error, ImageError) and reading != "mask" else "invalid_mask"
    return FieldError(str(error), param, code)
