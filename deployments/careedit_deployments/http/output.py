"""Results as a client gets them: size, token counts, the response, and files at an address of their own.

An address for `response_format: url` needs no key until it expires. It holds 160 random bits, the time at which it was made
and the hash of the file. A changed address therefore finds no file, every replica can serve it, and no secret is shared.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from careedit.provenance.watermark import size_note
from careedit.records import EditTrace
from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.output import Output, OutputFormat, inside, same_shape
from careedit_deployments.edits.stored import put_file
from careedit_deployments.errors import FieldError, NotFoundError
from careedit_deployments.http.openapi import FILES, error_answers
from careedit_deployments.http.schema import (
    EditFields,
    EditReport,
    ImageData,
    ImagesResponse,
    InputDetails,
    OutputDetails,
    Usage,
)
from careedit_deployments.http.services import caller_of, services_of
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.records import id_time

TOKEN_SIDE = 16
"""Side of the square that one image token covers, in pixels, as in a FLUX-class transformer."""

_MAX_SIDE: Mapping[OutputFormat, int] = {"jpeg": 65_500, "webp": 16_383}
_WORDS = re.compile(r"\w+|[^\w\s]")
_KINDS = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

router = APIRouter(tags=["images"])


def output_of(fields: EditFields, notes: Sequence[str], source: tuple[int, int], config: ServeConfig) -> Output:
    """How the results of a request look; `source` is the size of its source. Raises `FieldError` for a wrong size."""
    size = target_size(fields, source, config)
    return Output(
        size=size,
        format=fields.output_format,
        compression=fields.output_compression,
        quality=fields.level,
        notes=(*notes, *policy_notes(fields, config), *size_notes(size, source), *_watermark_notes(size, config)),
    )


def target_size(fields: EditFields, source: tuple[int, int], config: ServeConfig) -> tuple[int, int]:
    """The size (width, height) of the results: that of the source, or the requested one.

    Other proportions than those of the source are filled as in `encode`, or refused if `http.compatibility` is strict.
    Raises `FieldError`.
    """
    if fields.size == "auto":
        size = source
    else:
        width, height = (int(side) for side in fields.size.split("x"))
        size = (width, height)
        if width * height > config.limits.pixels:
            raise FieldError(
                f"size is {fields.size} = {width * height:,} pixels; the limit is {config.limits.pixels:,}, so give a smaller "
                "size.",
                "size",
            )
    longest = _MAX_SIDE.get(fields.output_format)
    if longest is not None and max(size) > longest:
        raise FieldError(
            f"The result would be {size[0]}x{size[1]}; a side of a {fields.output_format} has at most {longest:,} pixels. Give a "
            "smaller size, or png as output_format.",
            "size",
        )
    if config.http.compatibility == "strict" and not same_shape(size, source):
        exact = max(1, round(size[0] * source[1] / source[0]))
        raise FieldError(
            f"size is {fields.size} but the image is {source[0]}x{source[1]}, and this server keeps its proportions "
            f"(http.compatibility is strict); use auto, or {size[0]}x{exact}.",
            "size",
        )
    return size


def policy_notes(fields: EditFields, config: ServeConfig) -> tuple[str, ...]:
    """Sentences about fields on which the content policy, or its absence, has an effect."""
    notes = []
    if fields.moderation is not None and not config.policy.checks:
        notes.append("moderation has no effect here: this server does not moderate.")
    for name in ("partial_images", "candidate_images"):
        if getattr(fields, name) and config.policy.withholds_previews:
            notes.append(f"{name} has no effect here: the content policy decides about finished images only.")
    return tuple(notes)


def size_notes(size: tuple[int, int], source: tuple[int, int]) -> tuple[str, ...]:
    """A sentence that says how a size with other proportions than the source was filled; empty for equal proportions."""
    if same_shape(size, source):
        return ()
    width, height = inside(source, size)
    sentence = (
        f"size is {size[0]}x{size[1]} and the image {source[0]}x{source[1]}: the edit is {width}x{height} in the middle, and "
        "its edge is repeated around it."
    )
    return (sentence,)


def _watermark_notes(size: tuple[int, int], config: ServeConfig) -> tuple[str, ...]:
    note = None if config.watermark is None else size_note(config.watermark.method, size)
    return () if note is None else (note,)


def usage_of(traces: Sequence[EditTrace], prompt: str, references: int) -> Usage:
    """Input and output in tokens, as OpenAI's API counts them."""
    width, height = traces[0].panel
    panel = -(-width // TOKEN_SIDE) * -(-height // TOKEN_SIDE)
    details = InputDetails(image_tokens=panel * (1 + references), text_tokens=len(_WORDS.findall(prompt)))
    input_tokens = details.image_tokens + details.text_tokens
    output_tokens = panel * len(traces)
    return Usage(
        input_tokens=input_tokens,
        input_tokens_details=details,
        output_tokens=output_tokens,
        output_tokens_details=OutputDetails(image_tokens=output_tokens),
        total_tokens=input_tokens + output_tokens,
    )


def images_response(
    data: list[ImageData],
    report: EditReport,
    output: Output,
    *,
    prompt: str,
    references: int,
    user: str | None,
    created: float | None = None,
) -> ImagesResponse:
    """The response to an edit, a turn or a finished job. `created` is a Unix time; None: now."""
    return ImagesResponse(
        created=int(unix_time() if created is None else created),
        data=data,
        output_format=output.format,
        quality=output.quality,
        size="{}x{}".format(*output.size),
        safety_identifier=user,
        usage=usage_of(report.traces, prompt, references),
        careedit=report,
    )


async def store_file(request: Request, data: bytes, suffix: str, *, user: str | None) -> str:
    """Store a result for a user, as `user_of` names them; returns the address at which it is fetched, for `response_format: url`. Raises `QuotaError`."""
    scope = f"files/file_{int(unix_time() * 1000):012x}{secrets.token_hex(20)}"
    services, owner = services_of(request), caller_of(request).id
    key = await put_file(services.store, services.blobs, scope, data, suffix=suffix, owner=owner, user=user)
    base = services.config.http.public_url or str(request.base_url)
    return f"{base.rstrip('/')}{FILES}{key.removeprefix('files/')}"


@router.get(
    FILES + "{file_id}/{name}",
    operation_id="retrieveImageFile",
    response_class=Response,
    responses={
        200: {"description": "The image file.", "content": {kind: {} for kind in _KINDS.values()}},
        **error_answers(404, 500, 503),
    },
)
async def get_file(file_id: str, name: str, request: Request) -> Response:
    """Return a result of a request with `response_format: url`, until its address expires."""
    services = services_of(request)
    left = id_time(file_id) + services.config.state.file_ttl_s - unix_time()
    kind = _KINDS.get(name.rpartition(".")[2])
    gone = "This address has no image, or it has expired; make the edit again."
    if left <= 0 or kind is None:
        raise NotFoundError(gone)
    try:
        data = await services.blobs.get(f"files/{file_id}/{name}")
    except NotFoundError:
        raise NotFoundError(gone) from None
    headers = {"cache-control": f"private, max-age={int(left)}, immutable", "x-content-type-options": "nosniff"}
    return Response(data, media_type=kind, headers=headers)
