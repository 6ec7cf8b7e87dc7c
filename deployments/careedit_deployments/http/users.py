"""`/v1/users/NAME`: what a tenant stores of one of its end users."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import StreamingResponse

from careedit_deployments.edits.erasure import Receipt, erase
from careedit_deployments.edits.personal_export import export_files, find_data, zipped
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.services import caller_of, services_of

router = APIRouter(tags=["users"])


@router.get(
    "/v1/users/{user:path}",
    operation_id="exportUser",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A zip file with JSON, image files and `manifest.json`. It is not complete without the manifest.",
            "content": {"application/zip": {}},
        },
        **error_answers(400, 401, 404, 429, 500, 503),
    },
)
async def export_user(user: str, request: Request) -> StreamingResponse:
    """Return a copy of what is stored of an end user: everything that a DELETE would erase. `user` is the name that was sent
    with requests, or its pseudonym."""
    services, caller = services_of(request), caller_of(request)
    data = await find_data(services.store, caller.id, await services.users.forms(caller.id, user))
    files = export_files(services.store, services.blobs, data, caller.id, whole=False, actor=caller.actor)
    headers = {"content-disposition": 'attachment; filename="user.zip"'}
    return StreamingResponse(zipped(files), media_type="application/zip", headers=headers)


@router.delete(
    "/v1/users/{user:path}",
    operation_id="eraseUser",
    responses=error_answers(400, 401, 409, 429, 500, 503),
)
async def erase_user(user: str, request: Request) -> Receipt:
    """Erase jobs, sessions, images, edits and feedback of an end user, and return a receipt. `user` is the name that was sent
    with requests, or its pseudonym."""
    services, caller = services_of(request), caller_of(request)
    names = await services.users.forms(caller.id, user)
    return await erase(services.store, services.blobs, caller.id, names, actor=caller.actor)
