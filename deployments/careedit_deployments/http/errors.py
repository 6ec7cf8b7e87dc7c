"""Errors as OpenAI's API tells them: `{"error": {message, type, param, code}}`, and the status of each.

A message that reaches a client is either one that was written for people (careedit's own errors) or says nothing of the
inside: a bug, and a damaged model file with its path, answer "The server failed", and the log holds the rest.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from careedit.errors import (
    CancelledError,
    CareEditError,
    ImageError,
    InputError,
    MaskError,
    ReplayError,
    UnknownExpertError,
)
from careedit.records import Record
from careedit_deployments import errors as serving
from careedit_deployments.telemetry.catalogue import Refusal

logger = logging.getLogger(__name__)


class FieldError(InputError):
    """A field of a request is wrong, missing, or not one that this server takes."""

    def __init__(self, message: str, param: str, code: str = "invalid_value") -> None:
        super().__init__(message, param, code)
        self.param = param
        """The field, as the client named it."""
        self.code = code
        """For programs, e.g. "unsupported_parameter"."""

    def __str__(self) -> str:
        return str(self.args[0])


class TooLargeError(serving.ServingError):
    """The body of a request is larger than the limit (HTTP 413)."""


class CompressedError(serving.ServingError):
    """The body of a request has a `Content-Encoding` (HTTP 415)."""


class SlowBodyError(serving.ServingError):
    """The body of a request arrives too slowly, or not at all (HTTP 408)."""


class ConcurrencyError(serving.RateLimitError):
    """This API key has too much in progress at once (HTTP 429)."""


class Problem(Record):
    """An error as a client gets it."""

    status: int
    """HTTP status."""
    message: str
    """A sentence."""
    type: str = "invalid_request_error"
    """OpenAI's class of error."""
    param: str | None = None
    """The field that is to blame."""
    code: str | None = None
    """For programs."""
    retry_after: float | None = None
    """Seconds after which a new attempt makes sense."""
    refusal: Refusal | None = None
    """What the metrics call it."""

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """OpenAI's shape."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After, and whether OpenAI's client should try again by itself."""
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        if self.status == 408:
            headers["Connection"] = "close"  # what is still to come of the body is not waited for
        if self.status in (408, 409, 501, 504):  # OpenAI's clients would repeat these, and get the same answer
            headers["x-should-retry"] = "false"
        if self.code == "unsupported_content_encoding":
            headers["Accept-Encoding"] = "identity"  # RFC 9110, 12.5.3
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


_RULES: Sequence[tuple[type[CareEditError], int, str, str, Refusal | None]] = (
    (serving.AuthError, 401, "invalid_request_error", "invalid_api_key", "auth"),
    (ConcurrencyError, 429, "rate_limit_error", "concurrency_limit_exceeded", "concurrency"),
    (serving.RateLimitError, 429, "rate_limit_error", "rate_limit_exceeded", "rate"),
    (serving.OverloadedError, 429, "server_overloaded", "server_overloaded", "queue"),
    (TooLargeError, 413, "invalid_request_error", "request_too_large", "size"),
    (CompressedError, 415, "invalid_request_error", "unsupported_content_encoding", "input"),
    (SlowBodyError, 408, "invalid_request_error", "request_timeout", "slow"),
    (serving.TooExpensiveError, 400, "invalid_request_error", "too_expensive", "cost"),
    (serving.NotFoundError, 404, "invalid_request_error", "not_found", None),
    (serving.ConflictError, 409, "invalid_request_error", "conflict", None),
    (serving.ScorerUnavailableError, 503, "server_error", "scorer_unavailable", None),
    (serving.UnavailableError, 503, "server_error", "unavailable", None),
    (serving.DeadlineError, 504, "server_error", "deadline_exceeded", None),
    (UnknownExpertError, 400, "invalid_request_error", "unknown_expert", "input"),
    (MaskError, 400, "invalid_request_error", "invalid_mask", "input"),
    (ImageError, 400, "invalid_request_error", "invalid_image", "input"),
    (InputError, 400, "invalid_request_error", "invalid_value", "input"),
    (ReplayError, 409, "invalid_request_error", "cannot_replay", None),
    (CancelledError, 409, "invalid_request_error", "cancelled", None),
    (serving.ServingError, 500, "server_error", "edit_failed", None),
)
"""First match counts: class, status, type, code, and what the metrics call it."""

_PARAMS = {
    "instruction": "prompt",
    "mask": "mask",
    "preview_steps": "early_filter",
    "filter": "early_filter",
    "expert": "expert",
    "reference": "image",
    "references": "image",
    **{name: name for name in ("seed", "steps", "guidance", "n", "top_k", "size", "quality", "image")},
}
"""Words that careedit's sentences use of a field, and the field's name here."""


def problem_of(error: BaseException) -> Problem:
    """What a client is told of an error; of one that was not foreseen, only that there was one."""
    if isinstance(error, FieldError):
        return Problem(status=400, message=str(error), param=error.param, code=error.code, refusal="input")
    for kind, status, family, code, refusal in _RULES:
        if isinstance(error, kind):
            param = _param_of(error)
            return Problem(
                status=status,
                message=str(error),
                type=family,
                param=param,
                code="model_not_found" if param == "model" else code,
                refusal=refusal,
                retry_after=error.retry_after if isinstance(error, serving.OverloadedError) else _pause(status),
            )
    logger.error("An error that was not foreseen.", exc_info=error)
    message = (
        "The server failed at this request; try again, and if that fails too, tell its request id to the operator."
    )
    return Problem(status=500, message=message, type="server_error", code="internal_error")


def _pause(status: int) -> float | None:
    return 5.0 if status == 503 else None


def _param_of(error: CareEditError) -> str | None:
    """The field that a sentence is about: one of our words for it stands where the sentence begins."""
    if isinstance(error, UnknownExpertError):
        return "expert"
    if isinstance(error, ImageError):
        return "image"
    if isinstance(error, MaskError):
        return "mask"
    words = [word.strip("'`.,;:()").lower() for word in str(error).split()]
    if isinstance(error, serving.TooExpensiveError):
        return _PARAMS.get(words[0])
    if isinstance(error, serving.NotFoundError):
        return "model" if words[:4] == ["there", "is", "no", "model"] else None
    if isinstance(error, InputError):
        return next((_PARAMS[word] for word in words[:3] if word in _PARAMS), None)
    return None


def respond(problem: Problem) -> JSONResponse:
    """The answer that tells a problem."""
    return JSONResponse(problem.body, problem.status, headers=problem.headers)


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
    """The first flaw of a validation report, naming its field."""
    flaw = flaws[0]
    param = _place(flaw["loc"], odd=flaw["type"] == "extra_forbidden")
    code, reason = "invalid_value", str(flaw["msg"]).removeprefix("Value error, ")
    if flaw["type"] == "missing":
        message = f"The field {param!r} is missing; give it." if param else "The body is missing; give it."
        code = "missing_required_parameter"
    elif flaw["type"] == "extra_forbidden":
        message, code = f"There is no field {param!r} here; leave it out.", "unknown_parameter"
    elif flaw["type"] == "json_invalid":
        message, param, code = (
            f"The body is no JSON ({(flaw.get('ctx') or {}).get('error', reason)}); correct it.",
            None,
            "invalid_json",
        )
    else:
        given = repr(flaw.get("input"))
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
