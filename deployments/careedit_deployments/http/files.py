"""Results at an address of their own, for `response_format: url`: fetched without a key until they expire.

The address is the key: it holds 160 random bits, the time at which it was made and the file's hash. Nothing in it can be
changed without missing the file, every replica can serve it, and no secret has to be shared or kept.
"""

from __future__ import annotations

import secrets
import time

from anyio.to_thread import run_sync
from fastapi import APIRouter
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from careedit_deployments.edits.output import encode, encode_base64
from careedit_deployments.errors import NotFoundError
from careedit_deployments.http.openapi import FILES, error_answers
from careedit_deployments.http.schema import EditFields, ImageData
from careedit_deployments.http.services import services_of
from careedit_deployments.state.records import id_time

_KINDS = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

router = APIRouter(tags=["images"])


async def image_data(request: Request, fields: EditFields, picture: Image.Image, size: tuple[int, int]) -> ImageData:
    """A result as the client wants it: in the answer, or at an address."""
    how = (picture, size, fields.output_format, fields.output_compression)
    if fields.response_format == "b64_json":
        return ImageData(b64_json=await run_sync(encode_base64, *how))
    scope = f"files/file_{int(time.time() * 1000):012x}{secrets.token_hex(20)}"
    key = await services_of(request).blobs.put(scope, await run_sync(encode, *how), suffix=fields.output_format)
    base = services_of(request).config.http.public_url or str(request.base_url)
    return ImageData(url=f"{base.rstrip('/')}{FILES}{key.removeprefix('files/')}")


@router.get(
    FILES + "{file_id}/{name}",
    operation_id="retrieveImageFile",
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": {kind: {} for kind in _KINDS.values()}},
        **error_answers(404, 500, 503),
    },
)
async def get_file(file_id: str, name: str, request: Request) -> Response:
    """A result that was asked for with `response_format: url`, until it expires."""
    services = services_of(request)
    left = id_time(file_id) + services.config.state.file_ttl_s - time.time()
    kind = _KINDS.get(name.rpartition(".")[2])
    gone = "There is no picture at this address, or it has expired; make the edit again."
    if left <= 0 or kind is None:
        raise NotFoundError(gone)
    try:
        data = await services.blobs.get(f"files/{file_id}/{name}")
    except NotFoundError:
        raise NotFoundError(gone) from None
    headers = {"cache-control": f"private, max-age={int(left)}, immutable", "x-content-type-options": "nosniff"}
    return Response(data, media_type=kind, headers=headers)
