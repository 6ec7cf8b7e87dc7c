"""Maps errors to HTTP statuses and to the shape of OpenAI's API: `{"error": {message, type, param, code}}`.

A client gets the messages of careedit's own errors, which are written for users. Any other error, for example a bug or a
damaged file with its path, becomes "Internal error"; the log has the details.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

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
from careedit.record import Record
from careedit.records import EarlyFilter
from careedit_deployments.errors import (
    AuthError,
    BudgetError,
    CompressedError,
    ConcurrencyError,
    ConflictError,
    DeadlineError,
    FieldError,
    ForeignPageError,
    HeadTooLargeError,
    NotFoundError,
    OverloadedError,
    PolicyError,
    PolicyUnavailableError,
    QuotaError,
    RateLimitError,
    ScopeError,
    ScorerUnavailableError,
    ServingError,
    SlowBodyError,
    TenantPolicyError,
    TooExpensiveError,
    TooLargeError,
    UnavailableError,
)
from careedit_deployments.telemetry.catalogue import Refusal

logger = logging.getLogger(__name__)


class Problem(Record):
    """An error as a client gets it."""

    status: int
    """The HTTP status of the answer."""
    message: str
    """A sentence that says what is wrong and what to do."""
    type: str = "invalid_request_error"
    """OpenAI's class of the error."""
    param: str | None = None
    """The request field that is wrong; None if no single field is."""
    code: str | None = None
    """OpenAI's code of the error, for programs, e.g. "invalid_image"."""
    retry_after: float | None = None
    """Seconds after which a new attempt makes sense; None sends no `Retry-After`."""
    refusal: Refusal | None = None
    """The label of this refusal in the metrics; None if it is not counted."""

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """The body of the response, in OpenAI's shape."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response: when to try again, and whether OpenAI's clients should do so by themselves."""
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}
        if self.status == 408:
            headers["Connection"] = "close"  # the server does not read the rest of the body
        if (
            self.status in (408, 409, 501, 504) or self.refusal == "quota"
        ):  # OpenAI's clients would retry and fail again
            headers["x-should-retry"] = "false"
        if self.code == "unsupported_content_encoding":
            headers["Accept-Encoding"] = "identity"  # RFC 9110, 12.5.3
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


_RULES: Sequence[tuple[type[CareEditError], int, str, str, Refusal | None]] = (
    (AuthError, 401, "invalid_request_error", "invalid_api_key", "auth"),
    (ForeignPageError, 403, "invalid_request_error", "foreign_page", "auth"),
    (ScopeError, 403, "invalid_request_error", "missing_scope", "auth"),
    (TenantPolicyError, 403, "invalid_request_error", "tenant_policy", "tenant"),
    (ConcurrencyError, 429, "rate_limit_error", "concurrency_limit_exceeded", "concurrency"),
    (RateLimitError, 429, "rate_limit_error", "rate_limit_exceeded", "rate"),
    (OverloadedError, 429, "server_overloaded", "server_overloaded", "queue"),
    (BudgetError, 429, "insufficient_quota", "daily_quota_exceeded", "quota"),
    (QuotaError, 429, "insufficient_quota", "storage_quota_exceeded", "quota"),
    (TooLargeError, 413, "invalid_request_error", "request_too_large", "size"),
    (HeadTooLargeError, 431, "invalid_request_error", "request_headers_too_large", "size"),
    (CompressedError, 415, "invalid_request_error", "unsupported_content_encoding", "input"),
    (SlowBodyError, 408, "invalid_request_error", "request_timeout", "slow"),
    (TooExpensiveError, 400, "invalid_request_error", "too_expensive", "cost"),
    (NotFoundError, 404, "invalid_request_error", "not_found", None),
    (ConflictError, 409, "invalid_request_error", "conflict", None),
    (ScorerUnavailableError, 503, "server_error", "scorer_unavailable", None),
    (PolicyUnavailableError, 503, "server_error", "policy_unavailable", None),
    (UnavailableError, 503, "server_error", "unavailable", None),
    (DeadlineError, 504, "server_error", "deadline_exceeded", None),
    (PolicyError, 400, "invalid_request_error", "policy_violation", "policy"),
    (UnknownExpertError, 400, "invalid_request_error", "unknown_expert", "input"),
    (MaskError, 400, "invalid_request_error", "invalid_mask", "input"),
    (ImageError, 400, "invalid_request_error", "invalid_image", "input"),
    (InputError, 400, "invalid_request_error", "invalid_value", "input"),
    (ReplayError, 409, "invalid_request_error", "cannot_replay", None),
    (CancelledError, 409, "invalid_request_error", "cancelled", None),
    (ServingError, 500, "server_error", "edit_failed", None),
)
"""Class, HTTP status, OpenAI's type and code, and label in the metrics; the first match counts."""

_API_NAMES: Mapping[str, str] = {
    "instruction": "prompt",
    "references": "image",
    **dict.fromkeys(EarlyFilter.model_fields, "early_filter"),
}
"""Attributes of careedit's records whose name in a request differs; every other attribute has the same name there."""


def problem_of(error: BaseException) -> Problem:
    """The HTTP response for an error. An unexpected error is logged, and its message is not sent."""
    if isinstance(error, FieldError):
        return Problem(status=400, message=str(error), param=error.field, code=error.code, refusal="input")
    for kind, status, family, code, refusal in _RULES:
        if isinstance(error, kind):
            param = None if error.field is None else _API_NAMES.get(error.field, error.field)
            return Problem(
                status=status,
                message=str(error),
                type=family,
                param=param,
                code="model_not_found" if param == "model" and status == 404 else code,
                refusal=refusal,
                retry_after=error.retry_after if isinstance(error, OverloadedError | BudgetError) else _pause(status),
            )
    logger.error("Unexpected error.", exc_info=error)
    message = "Internal error. Try again; if it persists, report the request id to the operator."
    return Problem(status=500, message=message, type="server_error", code="internal_error")


def _pause(status: int) -> float | None:
    return 5.0 if status == 503 else None


def respond(problem: Problem) -> JSONResponse:
    """The HTTP response of a problem."""
    return JSONResponse(problem.body, problem.status, headers=problem.headers)
