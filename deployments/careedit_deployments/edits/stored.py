"""What is stored of jobs and sessions: pictures in a scope of the blob store, the order of a job as JSON, and their deletion.

Deletion removes rows first, then pictures. A process that dies in between leaves pictures without rows, which the cleanup
finds.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from anyio.to_thread import run_sync
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel

from careedit.files import json_digest, png_bytes
from careedit.images import image_sha256, marks_of
from careedit.record import Record
from careedit.records import EditRequest
from careedit_deployments.edits.backend import EditOrder
from careedit_deployments.edits.output import Output
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.records import JobImage
from careedit_deployments.state.store import Store

SENT = "2-"
"""Prefix of a hash of the sent body. Hashes without it belong to older jobs; see `resolved_sha256`."""

_PICTURES = {"image", "mask", "references"}


class StoredOrder(Record):
    """The order of a job as JSON; the content of `JobRecord.order`."""

    request: Mapping[str, Any]
    """The fields of the `EditRequest`, without its pictures."""
    image: str
    """Blob key of the source, a PNG."""
    mask: str | None = None
    """Blob key of the mask, a PNG."""
    references: tuple[str, ...] = ()
    """Blob keys of the references, PNGs."""
    model: str | None = None
    """Name of an arm or of its expert set. None: the traffic weights decide."""
    user: str | None = None
    """The client's name for the end user. None: the order belongs to no user."""
    partials: int = 0
    """Number of previews per image, 0 to 3; default 0."""
    output: Output
    """Size, format and quality of the results."""


def scope_of(identity: str) -> str:
    """The scope of the pictures of a job or session in the blob store, from the id: `jobs/job_...`, `sessions/session_...`."""
    return f"{identity.partition('_')[0]}s/{identity}"


async def delete_job(store: Store, blobs: BlobStore, job_id: str) -> None:
    """Delete a job with every byte: row, events, webhooks, words in the log of edits, pictures."""
    await store.edits.redact(job_id)
    await store.jobs.delete(job_id)
    await blobs.delete_scope(scope_of(job_id))


async def delete_session(store: Store, blobs: BlobStore, session_id: str) -> bool:
    """Delete a session with every byte: row, turns, words in the log of edits, pictures. False: its row was gone already."""
    await store.edits.redact(session_id)
    was_there = await store.sessions.delete(session_id)
    await blobs.delete_scope(scope_of(session_id))
    return was_there


def png_of(picture: Image.Image, *, made: bool = False) -> bytes:
    """The picture as a PNG, with little compression: speed matters more than bytes here.

    A client's picture keeps the marks of its decoding; a picture that was `made` here has none.
    """
    notes = PngInfo()
    for name, text in ({} if made else marks_of(picture)).items():
        notes.add_text(str(name), text)
    return png_bytes(picture, compress_level=1, pnginfo=notes)


def picture_of(data: bytes) -> Image.Image:
    """The picture of a PNG that `png_of` wrote. It was checked before it was stored, so no limits apply here."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        copy = picture.copy()
    copy.info = dict(marks_of(copy))
    return copy


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


async def keep_order(order: EditOrder, output: Output, blobs: BlobStore, scope: str) -> StoredOrder:
    """Store the pictures of an order; return the order that refers to them."""

    async def keep(picture: Image.Image) -> str:
        return await blobs.put(scope, await run_sync(png_of, picture), suffix="png")

    request = order.request
    return StoredOrder(
        request=request.model_dump(mode="json", exclude=_PICTURES),
        image=await keep(request.image),
        mask=None if request.mask is None else await keep(request.mask),
        references=tuple([await keep(picture) for picture in request.references]),
        model=order.model,
        user=order.user,
        partials=order.partials,
        output=output,
    )


async def load_order(stored: StoredOrder, blobs: BlobStore, *, owner: str, request_id: str) -> EditOrder:
    """The order with its pictures. Raises `NotFoundError` if a picture is gone."""

    async def load(key: str) -> Image.Image:
        return await run_sync(picture_of, await blobs.get(key))

    request = EditRequest(
        image=await load(stored.image),
        mask=None if stored.mask is None else await load(stored.mask),
        references=tuple([await load(key) for key in stored.references]),
        **stored.request,
    )
    return EditOrder(
        request=request,
        model=stored.model,
        user=stored.user,
        partials=stored.partials,
        request_id=request_id,
        owner=owner,
    )


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
