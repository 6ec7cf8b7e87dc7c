"""Errors that only a server has; `careedit_deployments.problems` maps them and careedit's own to HTTP responses."""

from __future__ import annotations

from careedit.errors import CareEditError, InputError


class ServingError(CareEditError):
    """Base class of the errors that only a server has."""


class OverloadedError(ServingError):
    """The queue is full (HTTP 429)."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which a new attempt makes sense."""


class UnavailableError(ServingError):
    """No replica is available, or none could do it within the deadline (HTTP 503)."""


class PolicyUnavailableError(UnavailableError):
    """A policy check that must answer does not (HTTP 503); the request is not at fault."""


class ScorerUnavailableError(UnavailableError):
    """No scorer pool is configured, or it does not answer (HTTP 503)."""


class DeadlineError(ServingError):
    """The edit's deadline has passed (HTTP 504)."""


class TooExpensiveError(ServingError):
    """The request asks for more than a limit allows (HTTP 400); the message has the estimate."""


class NotFoundError(ServingError):
    """A job, session, edit or model does not exist or belongs to another caller (HTTP 404)."""


class LostImageError(NotFoundError):
    """The bytes of a stored image are gone or damaged (HTTP 404); another attempt would not find them either."""


class ConflictError(ServingError):
    """The request conflicts with the current state, e.g. an idempotency key with another body (HTTP 409)."""


class AuthError(ServingError):
    """The API key is missing or wrong (HTTP 401)."""


class ForeignPageError(ServingError):
    """The page of another site sent the request, to a server without keys (HTTP 403)."""


class ScopeError(ServingError):
    """The API key does not have the scope that the route needs (HTTP 403)."""


class TenantPolicyError(ServingError):
    """The policy of the tenant does not allow it (HTTP 403)."""


class RateLimitError(OverloadedError):
    """The tenant has sent too many requests (HTTP 429)."""


class QuotaError(ServingError):
    """The tenant has stored as many bytes or sessions as it may (HTTP 429); only a deletion helps, another attempt does not."""


class BudgetError(QuotaError):
    """The tenant's edits have taken as many evaluations today as they may (HTTP 429)."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds until the next day begins."""


class ConcurrencyError(RateLimitError):
    """The tenant has too many requests in progress, or jobs waiting, at once (HTTP 429)."""


class FieldError(InputError):
    """A field of a request is wrong, missing or unknown (HTTP 400); `field` is its name as the client sent it."""

    def __init__(self, message: str, field: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message, field=field)
        self.code = code
        """OpenAI's code of the error, for programs, e.g. "unsupported_parameter"."""


class PolicyError(InputError):
    """The content policy refuses a request or its result (HTTP 400)."""


class TooLargeError(ServingError):
    """The body of a request is larger than the limit (HTTP 413)."""


class HeadTooLargeError(ServingError):
    """A request has too many headers, or too many bytes before its body (HTTP 431)."""


class CompressedError(ServingError):
    """The body of a request has a `Content-Encoding` (HTTP 415)."""


class SlowBodyError(ServingError):
    """The body or the headers of a request arrive too slowly, or not at all (HTTP 408)."""
