"""What is stored of jobs and sessions: pictures in a scope of the blob store, the order of a job as JSON, and their deletion.

Deletion removes rows first, then pictures. A process that dies in between leaves pictures without rows, which the cleanup
finds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Protocol

from anyio.to_thread import run_sync
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel, Field

from careedit.files import json_digest, png_bytes
from careedit.images import Limits, image_sha256, inspect_picture, marks_of, without_metadata
from careedit.record import Record
from careedit.records import EditRequest
from careedit_deployments.checks import Moderation
from careedit_deployments.edits.backend import EditOrder
from careedit_deployments.edits.codecs import Codecs, PictureFile, Reading
from careedit_deployments.edits.output import Output
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.records import JobImage
from careedit_deployments.state.store import Store

SENT = "2-"
"""Prefix of a hash of the sent body. Hashes without it belong to older jobs; see `resolved_sha256`."""

KEPT_AS_SENT = "sent"
"""Suffix of the key of a client's file; those with another suffix are files that this server made."""

STORED_LIMITS = Limits(max_bytes=2**62, max_pixels=2**62, max_side=2**31, max_aspect=2**31)
"""Limits of stored pictures. They were checked before they were stored, and a job that was accepted does not change."""

_PICTURES = {"image", "mask", "references"}
_PIXEL_BYTES, _FILE_BYTES = 3, 2**16


class Put(Protocol):
    """Stores a file in one scope, as `put_file` and `BlobStore.put` do."""

    async def __call__(self, data: bytes, /, *, suffix: str) -> str:
        """Store the file and return its key."""
        ...


class StoredOrder(Record):
    """The order of a job as JSON; the content of `JobRecord.order`."""

    request: Mapping[str, Any]
    """The fields of the `EditRequest`, without its pictures."""
    image: str
    """Blob key of the source, as `kept_file` stored it."""
    mask: str | None = None
    """Blob key of the mask, stored in the same way."""
    references: tuple[str, ...] = ()
    """Blob keys of the references, stored in the same way."""
    model: str | None = None
    """Name of an arm or of its expert set. None: the traffic weights decide."""
    user: str | None = None
    """The end user, as in `EditRecord`. None: the order belongs to no user."""
    partials: int = 0
    """Number of previews per image, 0 to 3; default 0."""
    ingredient: Annotated[str | None, Field(exclude_if=lambda key: key is None)] = None
    """Blob key of the source with its Content Credentials. Not stored if results do not keep them, so that older replicas can
    read the record."""
    output: Output
    """Size, format and quality of the results."""
    moderation: Annotated[Moderation, Field(exclude_if=lambda level: level == "auto")] = "auto"
    """Level of the content policy. Not stored if it is "auto", so that older replicas can read the record."""
    files_sha256: Annotated[tuple[str | None, ...], Field(exclude_if=lambda hashes: not hashes)] = ()
    """sha256 of the files that were sent, for the content policy. Not stored if empty."""


def scope_of(identity: str) -> str:
    """The scope of the pictures of a job or session in the blob store, from the id: `jobs/job_...`, `sessions/session_...`."""
    return f"{identity.partition('_')[0]}s/{identity}"


async def delete_job(store: Store, blobs: BlobStore, job_id: str) -> None:
    """Delete a job with every byte: row, events, webhooks, words in the log of edits, pictures."""
    await store.edits.redact(job_id)
    await store.jobs.delete(job_id)
    await delete_files(store, blobs, scope_of(job_id))


async def delete_session(store: Store, blobs: BlobStore, session_id: str) -> bool:
    """Delete a session with every byte: row, turns, words in the log of edits, pictures. False: its row was gone already."""
    await store.edits.redact(session_id)
    was_there = await store.sessions.delete(session_id)
    await delete_files(store, blobs, scope_of(session_id))
    return was_there


async def delete_upload(store: Store, blobs: BlobStore, file_id: str) -> None:
    """Delete a file of a batch: its row, and its content if it was uploaded."""
    await store.files.delete(file_id)
    await delete_files(store, blobs, scope_of(file_id))


async def put_file(
    store: Store,
    blobs: BlobStore,
    scope: str,
    data: bytes,
    *,
    suffix: str,
    owner: str,
    user: str | None = None,
    accepted: bool = False,
) -> str:
    """Store a file, count its bytes for its owner (and `user`, where no other row says whose it is), and return its key. Nothing is left of a file that cannot be stored.

    Raises `QuotaError`, unless the file belongs to work that was `accepted` before.
    """
    await store.storage.add(scope, owner, len(data), user=user, accepted=accepted)
    try:
        return await blobs.put(scope, data, suffix=suffix)
    except BaseException:
        await asyncio.shield(store.storage.take_back(scope, len(data)))
        raise


async def delete_files(store: Store, blobs: BlobStore, scope: str) -> None:
    """Delete every file of a scope, and count none of them any more."""
    await blobs.delete_scope(scope)
    await store.storage.delete(scope)


def kept_file(picture: Image.Image, sent: bytes | None) -> tuple[bytes, str]:
    """What is stored of a client's picture, and its suffix: the file as it was sent, without metadata such as places.

    Decoded again it gives the same picture, with the same marks. A file whose metadata cannot be removed is stored as a PNG of
    its pixels, which has the marks as notes; so is every picture without a file.
    """
    plain = None if sent is None else without_metadata(sent)
    if plain is not None:
        return plain, KEPT_AS_SENT
    notes = PngInfo()
    for name, text in marks_of(picture).items():
        notes.add_text(str(name), text)
    return png_bytes(picture, compress_level=1, pnginfo=notes), "png"


def reading_of(key: str, reading: Reading = "image") -> Reading:
    """How a stored picture is decoded: as `kept_file` stored it. `reading` is that of the file as it was sent."""
    return reading if key.endswith(f".{KEPT_AS_SENT}") else "kept"


def sent_sha256(fields: BaseModel, pictures: Sequence[bytes], mask: bytes | None, webhook: str | None) -> str:
    """Hash of what a client sent, with its files undecoded: independent of the configuration and of form or JSON.

    A missing field equals its default. The prefix `SENT` distinguishes it from `resolved_sha256`.
    """
    sent = {
        "fields": fields.model_dump(
            mode="json", exclude_defaults=True, exclude={"images", "mask", "stream", "webhook"}
        ),
        "pictures": [hashlib.sha256(picture).hexdigest() for picture in pictures],
        "mask": None if mask is None else hashlib.sha256(mask).hexdigest(),
        "webhook": webhook,
    }
    return f"{SENT}{json_digest(sent, ensure_ascii=True, allow_nan=True)}"[
        :64
    ]  # the column's width; 248 bits of the hash


def resolved_sha256(order: EditOrder, output: Output, webhook: str | None) -> str:
    """Hash of an order as older jobs have it: of what the request meant under the configuration of that time."""
    request = order.request
    asked = {
        "request": request.model_dump(mode="json", exclude=_PICTURES),
        "pictures": [image_sha256(picture) for picture in (request.image, *request.references)],
        "mask": None if request.mask is None else image_sha256(request.mask),
        "order": [order.model, order.user, order.partials, webhook],
        "output": output.model_dump(mode="json"),
    }
    return json_digest(asked, ensure_ascii=True, allow_nan=True)


def reserved_bytes(order: EditOrder) -> int:
    """Room that the results of an order take at most: files without any compression."""
    return _PIXEL_BYTES * order.encoded_pixels + _FILE_BYTES * order.request.n * (1 + order.partials)


async def keep_order(
    order: EditOrder,
    output: Output,
    put: Put,
    *,
    pictures: Sequence[bytes] = (),
    mask: bytes | None = None,
    ingredient: bytes | None = None,
) -> StoredOrder:
    """Store the pictures of an order through `put`; return the order that refers to them.

    `pictures` (the source, then the references) and `mask` are the files that were sent, if there are any. `ingredient` is
    the source with its Content Credentials, if results keep them.
    """

    async def keep(picture: Image.Image, sent: bytes | None) -> str:
        data, suffix = await run_sync(kept_file, picture, sent)
        return await put(data, suffix=suffix)

    request = order.request
    sent: Sequence[bytes | None] = pictures or [None] * (1 + len(request.references))
    source, *references = sent
    return StoredOrder(
        request=request.model_dump(mode="json", exclude=_PICTURES),
        image=await keep(request.image, source),
        mask=None if request.mask is None else await keep(request.mask, mask),
        references=tuple([await keep(*pair) for pair in zip(request.references, references, strict=True)]),
        model=order.model,
        user=order.user,
        partials=order.partials,
        ingredient=None if ingredient is None else await put(ingredient, suffix="cred"),
        output=output,
        moderation=order.moderation,
        files_sha256=order.files_sha256,
    )


@asynccontextmanager
async def loaded_order(
    stored: StoredOrder, blobs: BlobStore, codecs: Codecs, *, owner: str, request_id: str
) -> AsyncIterator[EditOrder]:
    """The order with its pictures, whose memory is held while the block lasts.

    Raises `NotFoundError` if a picture is gone, and what `Codecs.decode` raises.
    """
    keys = (stored.image, *stored.references)
    files = [await _stored_file(blobs, key, "image", "image") for key in keys]
    if stored.mask is not None:
        files.append(await _stored_file(blobs, stored.mask, "mask", "mask"))
    async with codecs.memory.hold(owner, sum(file.memory for file in files)):
        pictures = [await codecs.decode(owner, file) for file in files]
        mask = None if stored.mask is None else pictures.pop()
        request = EditRequest(image=pictures[0], mask=mask, references=tuple(pictures[1:]), **stored.request)
        yield EditOrder(
            request=request,
            model=stored.model,
            user=stored.user,
            partials=stored.partials,
            result_size=stored.output.size,
            moderation=stored.moderation,
            files_sha256=stored.files_sha256,
            request_id=request_id,
            owner=owner,
        )


async def _stored_file(blobs: BlobStore, key: str, param: str, reading: Reading) -> PictureFile:
    data = await blobs.get(key)
    kind, size = await run_sync(lambda: inspect_picture(data, param, limits=STORED_LIMITS))
    return PictureFile(data, param, reading_of(key, reading), kind, size, STORED_LIMITS)


def remaining(request: EditRequest, made: Collection[JobImage]) -> tuple[EditRequest | None, int]:
    """The part of a request that is not made yet (None: nothing is left), and the index of its first image.

    Image i starts from the noise of `seed + i`, so the rest is a request of its own. With an early filter an image's
    noises depend on `n`, so all images are made again.
    """
    first = len(made)
    if {image.image for image in made} == set(range(request.n)):
        return None, request.n
    in_order = {image.image for image in made} == set(range(first))
    if not first or not in_order or request.early_filter is not None or request.seed is None:
        return request, 0
    return request.model_copy(update={"seed": request.seed + first, "n": request.n - first}), first
