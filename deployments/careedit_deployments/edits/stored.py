"""An order that waits: as JSON in the database, its pictures in the job's scope."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from anyio.to_thread import run_sync
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel, Field

from careedit.files import json_digest, png_bytes
from careedit.images import image_sha256, marks_of
from careedit.record import Record
from careedit.records import EditRequest
from careedit_deployments.edits.backend import EditOrder
from careedit_deployments.edits.output import OutputFormat, Quality
from careedit_deployments.state.blobs import BlobStore
from careedit_deployments.state.records import JobImage

SENT = "2-"
"""How a hash of what was sent begins; others are of jobs from before it."""

_PICTURES = {"image", "mask", "references"}


class Output(Record):
    """How the results are to look."""

    size: tuple[int, int]
    """Width and height."""
    format: OutputFormat = "png"
    """File format."""
    compression: int | None = None
    """As in the request."""
    quality: Quality = "auto"
    """As in the request."""
    notes: Annotated[tuple[str, ...], Field(exclude_if=lambda notes: not notes)] = ()
    """What was taken and changes nothing; absent where there is nothing to say, so that older replicas read it."""


class StoredOrder(Record):
    """What `JobRecord.order` holds."""

    request: Mapping[str, Any]
    """`EditRequest` without its pictures."""
    image: str
    """Blob key of the source, a PNG."""
    mask: str | None = None
    """Blob key of the mask, a PNG."""
    references: tuple[str, ...] = ()
    """Blob keys of the references, PNGs."""
    model: str | None = None
    """As in `EditOrder`."""
    user: str | None = None
    """As in `EditOrder`."""
    partials: int = 0
    """As in `EditOrder`."""
    output: Output
    """How the results are to look."""


def scope_of(job_id: str) -> str:
    """Where a job's pictures are."""
    return f"jobs/{job_id}"


def png_of(picture: Image.Image, *, made: bool = False) -> bytes:
    """The picture without loss, compressed little: speed counts more than bytes here.

    A picture from outside keeps the marks of its decoding; one that was `made` here has none.
    """
    notes = PngInfo()
    marks = {} if made else marks_of(picture)
    for name, text in marks.items():
        notes.add_text(str(name), text)
    return png_bytes(picture, compress_level=1, pnginfo=notes)


def picture_of(data: bytes) -> Image.Image:
    """What `png_of` wrote. It was checked before it was kept, so no limits are put on it again."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        copy = picture.copy()
    copy.info = dict(marks_of(copy))
    return copy


def sent_sha256(fields: BaseModel, pictures: Sequence[bytes], mask: bytes | None, webhook: str | None) -> str:
    """Hash of what a client sent, its files as they came: neither the configuration nor the body's form changes it.

    What is left out is as good as its default. The mark in front tells it from `resolved_sha256`.
    """
    sent = {
        "fields": fields.model_dump(mode="json", exclude_defaults=True, exclude={"images", "mask", "stream"}),
        "pictures": [hashlib.sha256(picture).hexdigest() for picture in pictures],
        "mask": None if mask is None else hashlib.sha256(mask).hexdigest(),
        "webhook": webhook,
    }
    return f"{SENT}{json_digest(sent, ensure_ascii=True, allow_nan=True)}"[
        :64
    ]  # the column's width; 248 bits of the hash


def resolved_sha256(order: EditOrder, output: Output, webhook: str | None) -> str:
    """Hash of an order as jobs had it before `sent_sha256`: of what the request meant under the configuration of that time."""
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
    """Write an order's pictures and return the rest."""

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
    """The order as it was. Raises `NotFoundError` where a picture is gone."""

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
    """What is left of a request when some of its images were made, and the index of the first image that is left.

    Image i starts from the noise of `seed + i`, so the rest is a request of its own. With an early filter an image's
    noises depend on `n`, and all are made again. None: nothing is left.
    """
    first = len(made)
    if {image.image for image in made} == set(range(request.n)):
        return None, request.n
    in_order = {image.image for image in made} == set(range(first))
    if not first or not in_order or request.early_filter is not None or request.seed is None:
        return request, 0
    return request.model_copy(update={"seed": request.seed + first, "n": request.n - first}), first
