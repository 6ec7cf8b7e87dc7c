"""`/v1/users/NAME`: what a tenant stores of one of its end users."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from careedit_deployments.edits.erasure import Receipt, erase
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.services import caller_of, services_of

router = APIRouter(tags=["users"])


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
