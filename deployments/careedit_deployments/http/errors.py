"""Handlers of the app's errors: careedit's own, Starlette's, and pydantic's reports about a body, a query or a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from careedit_deployments.problems import Problem, problem_of, respond

_EDITS_ONLY = "POST a picture and what to change in it to /v1/images/edits."
_ELSEWHERE = {
    "/v1/images/generations": f"This server edits pictures, and its bases cannot make one from words alone. {_EDITS_ONLY}",
    "/v1/images/variations": f"This server edits pictures, and makes no variations of one without words. {_EDITS_ONLY}",
}
"""OpenAI's routes that no base here can serve, and what to do instead."""


def http_problem(error: HTTPException, *, method: str, path: str) -> Problem:
    """What Starlette raises by itself (no such route, wrong method, a form that cannot be read), in OpenAI's shape."""
    if error.status_code == 404:
        hint = next((told for end, told in _ELSEWHERE.items() if path.rstrip("/").endswith(end)), None)
        if hint is not None:
            return Problem(status=404, message=hint, code="unknown_url")
        return Problem(status=404, message=f"There is no route {method} {path}; see /docs.", code="unknown_url")
    if error.status_code == 405:
        return Problem(status=405, message=f"The route {path} takes no {method}; see /docs.", code="method_not_allowed")
    status = error.status_code
    family = "server_error" if status >= 500 else "invalid_request_error"
    return Problem(status=status, message=str(error.detail), type=family, code="bad_request" if status == 400 else None)


_DEFAULT = "Leave it out for the default."
_HINTS = {
    "seed": "Leave it out for a random seed.",
    "n": "Leave it out for one picture.",
    "steps": "Leave it out for the steps of the expert set, or of `quality`.",
    "size": "Give auto, or WIDTHxHEIGHT such as 1024x1024.",
    "background": "A result has no transparent pixel, so only auto and opaque can be had.",
    **dict.fromkeys(
        ("guidance", "top_k", "output_compression", "partial_images", "quality", "output_format", "model", "user"),
        _DEFAULT,
    ),
    **dict.fromkeys(("input_fidelity", "moderation", "response_format", "session", "safety_identifier"), _DEFAULT),
}
"""What to do about a value that a field does not take, such as -1 for "random"."""


def validation_problem(flaws: Sequence[Mapping[str, Any]]) -> Problem:
    """The first violation of a validation report, naming its field."""
    violation = flaws[0]
    param = _place(violation["loc"], odd=violation["type"] == "extra_forbidden")
    code, reason = "invalid_value", str(violation["msg"]).removeprefix("Value error, ")
    if violation["type"] == "missing":
        message = f"The field {param!r} is missing; give it." if param else "The body is missing; give it."
        code = "missing_required_parameter"
    elif violation["type"] == "extra_forbidden":
        message, code = f"There is no field {param!r} here; leave it out.", "unknown_parameter"
    elif violation["type"] == "json_invalid":
        message, param, code = (
            f"The body is no JSON ({(violation.get('ctx') or {}).get('error', reason)}); correct it.",
            None,
            "invalid_json",
        )
    else:
        given = repr(violation.get("input"))
        shown = f"takes no {given if len(given) <= 60 else given[:57] + '...'}" if param else "cannot be used"
        message = f"{f'The field {param!r}' if param else 'The body'} {shown}: {reason[:1].lower()}{reason[1:]}."
        message += f" {_HINTS[param]}" if param in _HINTS else ""
    return Problem(status=400, message=message, param=param, code=code, refusal="input")


def _place(path: Sequence[int | str], *, odd: bool = False) -> str | None:
    """`images[0].image_url` of a path; None for the body as a whole. `odd`: the client may have given any name."""
    told = ""
    for part in path[1:] if path and path[0] in ("body", "query", "path", "header") else path:
        if isinstance(part, int):
            told += f"[{part}]"
        elif odd or (part.isidentifier() and not (told and part in ("str", "dict"))):
            told += f".{part[:64]}"
        else:
            break  # what a field might have been, of one that may be several things
    return told.lstrip(".") or None


async def on_careedit_error(request: Request, error: Exception) -> JSONResponse:
    """Handler of every `CareEditError`."""
    return _told(request, problem_of(error))


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Handler of Starlette's own errors."""
    assert isinstance(error, HTTPException)
    response = _told(request, http_problem(error, method=request.method, path=request.url.path))
    response.headers.update(error.headers or {})  # 405 states what is allowed
    return response


async def on_validation_error(request: Request, error: Exception) -> JSONResponse:
    """Handler of FastAPI's validation of a body, a query or a path."""
    assert isinstance(error, RequestValidationError)
    return _told(request, validation_problem(error.errors()))


def _told(request: Request, problem: Problem) -> JSONResponse:
    services = getattr(request.app.state, "services", None)
    if services is not None and problem.refusal is not None:
        services.metrics.refused(problem.refusal)
    return respond(problem)
