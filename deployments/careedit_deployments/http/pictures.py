"""Pictures of a request: checked by their headers, counted together, then decoded; they hold memory until the answer is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

from PIL import Image
from starlette.requests import Request

from careedit.errors import ImageError, InputError
from careedit.images import inspect_picture
from careedit_deployments.config import Limits
from careedit_deployments.errors import DeadlineError, FieldError, TooExpensiveError
from careedit_deployments.http.decoder import Reading
from careedit_deployments.http.decoding import Decoding, PictureFile
from careedit_deployments.http.limits import picture_limits
from careedit_deployments.http.services import caller_of, services_of

_HELD = "careedit.pictures"


def decoding_of(request: Request) -> Decoding:
    """The decoders of the app that handles `request`."""
    decoding = request.app.state.decoding
    assert isinstance(decoding, Decoding)
    return decoding


async def release_pictures(request: Request) -> AsyncIterator[None]:
    """A dependency of every route: what its pictures hold is free again once the answer is sent, however that ends."""
    async with AsyncExitStack() as held:
        request.scope[_HELD] = held
        yield


def look_at(data: bytes, param: str, limits: Limits, reading: Reading = "image") -> PictureFile:
    """A file whose header passed the check, for `decode_pictures`. Raises `FieldError`, naming the field `param`."""
    noun = "mask" if reading == "mask" else "image"
    try:
        kind, size = inspect_picture(data, noun, limits=picture_limits(limits))
    except InputError as error:
        raise _refusal(error, param, reading) from None
    return PictureFile(data, param, reading, kind, size)


def check_together(files: Sequence[PictureFile], limits: Limits) -> None:
    """Raise `TooExpensiveError` where a request's pictures have more pixels together than it may have."""
    pixels = sum(file.pixels for file in files)
    if pixels > limits.most_pixels:
        largest = max(files, key=lambda file: file.pixels)
        raise TooExpensiveError(
            f"The request's {len(files)} pictures have {pixels:,} pixels together; the limit is {limits.most_pixels:,}, so "
            "send smaller pictures, or fewer of them at once.",
            field=largest.param,
        )


async def hold_memory(request: Request, files: Sequence[PictureFile]) -> None:
    """Set the memory of decoded `files` aside until the request has been answered. Raises `OverloadedError`."""
    held: AsyncExitStack = request.scope[_HELD]
    memory = sum(file.memory for file in files)
    await held.enter_async_context(decoding_of(request).memory.hold(caller_of(request).id, memory))


async def decode_pictures(request: Request, files: Sequence[PictureFile]) -> list[Image.Image]:
    """The pictures, decoded one after the other within the deadline. Raises `FieldError`, `OverloadedError`, `DeadlineError`."""
    decoding, limit = decoding_of(request), services_of(request).config.limits.deadline_s
    try:
        async with asyncio.timeout(limit):
            return [await _decode(decoding, caller_of(request).id, file) for file in files]
    except TimeoutError:
        raise DeadlineError(
            f"Decoding the pictures took longer than the deadline of {limit:g} s; send smaller pictures."
        ) from None


async def _decode(decoding: Decoding, key: str, file: PictureFile) -> Image.Image:
    try:
        return await decoding.decode(key, file)
    except InputError as error:
        raise _refusal(error, file.param, file.reading) from None


def _refusal(error: InputError, param: str, reading: Reading) -> FieldError:
    code = "invalid_image" if isinstance(error, ImageError) and reading != "mask" else "invalid_mask"
    return FieldError(str(error), param, code)
