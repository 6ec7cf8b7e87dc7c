"""What every request passes before a route handles it: request id, key, limits, the size and speed of its body, HEAD.

These are plain ASGI middlewares. Starlette's `BaseHTTPMiddleware` hides that a client left, and its limit on bodies, like
FastAPI's, answers in plain text. The key is checked before the body is read, so that a caller without a key cannot make the
server hold megabytes.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import ExitStack

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from careedit_deployments.edits.tenancy import check_region
from careedit_deployments.errors import (
    AuthError,
    CompressedError,
    ServingError,
    SlowBodyError,
    TooLargeError,
    UnavailableError,
)
from careedit_deployments.http import pages
from careedit_deployments.http.auth import Caller, check_scope
from careedit_deployments.http.limits import Limiter
from careedit_deployments.http.logins import Authenticator
from careedit_deployments.http.openapi import FILES
from careedit_deployments.http.origins import Origins
from careedit_deployments.http.revocation import Revocation
from careedit_deployments.http.sse import EventStreamResponse, sse_error
from careedit_deployments.jobs.stopping import Stopping
from careedit_deployments.listening import Limits
from careedit_deployments.problems import Problem, problem_of, respond
from careedit_deployments.state.records import new_id
from careedit_deployments.telemetry.logs import set_request_id
from careedit_deployments.telemetry.metrics import Metrics
from careedit_deployments.telemetry.tracing import Tracing

OPEN = frozenset({"/healthz", "/readyz", "/openapi.json"}) | pages.PATHS
"""Paths that need no key and count towards no limit; the pages contain no data of their own."""

USERS = "/v1/users/"
"""Prefix of the paths that end with the name of an end user."""

NO_BODY = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods of requests without a body."""

MAX_VALUES = 10_000
"""Maximum number of values in a JSON body. The parser needs a thousand bytes for each, so 50 MB of them would need gigabytes."""

_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class AdmissionMiddleware:
    """Admits requests within the limits, sets their ids, and answers every error in OpenAI's shape."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticator: Authenticator,
        limiter: Limiter,
        limits: Limits,
        metrics: Metrics,
        tracing: Tracing,
        stopping: Stopping,
        origins: Origins | None,
        revocation: Revocation,
        region: str | None,
    ) -> None:
        """`origins` is None if every request needs a key; `region` is that of the server."""
        self.app = app
        self._origins = origins
        self._authenticator = authenticator
        self._limiter = limiter
        self._limits = limits
        self._metrics = metrics
        self._tracing = tracing
        self._stopping = stopping
        self._revocation = revocation
        self._region = region

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request; other scopes pass through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        _drop_bad_trace(scope)
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else new_id("req")
        scope["careedit.request_id"] = request_id
        set_request_id(request_id)
        started, streams, path = False, False, _route_path(scope)
        form = headers.get("content-type", "").lower().startswith("multipart/")
        body = LimitedBody(receive, self._limits, json=not form)

        async def send_with_id(message: Message) -> None:
            nonlocal started, streams
            if message["type"] == "http.response.start":
                started = True
                answer = MutableHeaders(scope=message)
                streams = answer.get("content-type", "").startswith(EventStreamResponse.media_type)
                answer.setdefault("x-request-id", request_id)
                answer.setdefault("x-content-type-options", "nosniff")
                if path.startswith("/v1/"):  # it may hold a person's image or words
                    answer.setdefault("cache-control", "no-store")
            await send(message)

        async def send_unless_refused(message: Message) -> None:
            # FastAPI reports every error in reading a body as a wrong body; such a response must not hide the reason.
            if started or body.refusal is None or message.get("status") == problem_of(body.refusal).status:
                await send_with_id(message)

        problem: Problem | None = None
        try:
            with self._tracing.span(
                "request", dict(headers), kind="server", method=scope["method"], path=_shown(path)
            ) as span:
                scope["careedit.trace_headers"] = span.headers
                with ExitStack() as held:
                    if self._origins is not None:
                        self._origins.check(scope["method"], headers)
                    caller = Caller()
                    if path.startswith(FILES):  # the address itself is the permission
                        held.enter_context(self._limiter.fetch())
                    elif path not in OPEN:
                        caller = await self._admit(scope, headers, held)
                    async with self._revocation.while_valid(caller):
                        await self.app(scope, body.receive, send_unless_refused)
        except ClientDisconnect:
            if body.refusal is None:
                return  # no client is left to answer
        except AuthError as error:
            problem = problem_of(error)
            if streams:  # the key was revoked
                await send_with_id({"type": "http.response.body", "body": sse_error(error), "more_body": False})
        except Exception as error:  # noqa: BLE001 - answered with a 500 without internals, and logged
            problem = problem_of(body.refusal or error)  # logs an unexpected error
        if body.refusal is not None and not started:
            problem = problem_of(body.refusal)
        if problem is not None:
            if problem.refusal is not None:
                self._metrics.refused(problem.refusal)
            if not started:
                await respond(problem)(scope, receive, send_with_id)

    async def _admit(self, scope: Scope, headers: Headers, held: ExitStack) -> Caller:
        """Admit a request, or raise; what it holds until its end is entered into `held`. Returns its caller."""
        if self._stopping.begun:
            raise UnavailableError("The server is stopping; send the request again in a moment.")
        held.enter_context(self._limiter.place())
        client = scope.get("client")
        caller = await self._authenticator.caller(headers.get("authorization"), client and client[0])
        scope["careedit.caller"] = caller
        check_scope(caller, scope["method"], _route_path(scope))
        held.enter_context(self._limiter.request(caller))
        if scope["method"] == "POST":  # only these cause work; polling a job does not
            check_region(caller.policy, self._region)
            self._limiter.take(caller)
        check_length(headers.get("content-length"), self._limits)
        return caller


def _route_path(scope: Scope) -> str:
    """The path without the prefix at which the app is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _shown(path: str) -> str:
    """The path as spans have it: without the name of an end user."""
    return f"{USERS}NAME" if path.startswith(USERS) else path


def _drop_bad_trace(scope: Scope) -> None:
    """Remove an invalid `traceparent` (W3C Trace Context, 3.2) and its `tracestate`."""
    headers = Headers(scope=scope)
    if "traceparent" in headers and not _PARENT.fullmatch(headers["traceparent"]):
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in (b"traceparent", b"tracestate")]


class LimitedBody:
    """The body of a request within the limits on size and speed; `receive` replaces ASGI's."""

    def __init__(
        self, receive: Receive, limits: Limits, *, json: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`json`: the body may be JSON, so its values are counted."""
        self._receive, self._limits, self._json, self._clock = receive, limits, json, clock
        self._began, self._size, self._values, self._complete = clock(), 0, 0, False
        self.refusal: ServingError | None = None
        """The reason for which the body was refused, or None. A form parser may hide the error that was raised."""

    async def receive(self) -> Message:
        """The next message. Raises `TooLargeError` or `SlowBodyError`, at every call from then on."""
        if self.refusal is not None:
            raise self.refusal
        if self._complete:  # the next message is the end of the connection, at any time
            return await self._receive()
        try:
            async with asyncio.timeout(self.seconds_left) as limit:
                message = await self._receive()
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._refuse(_slow(self._limits)) from None
        if message["type"] == "http.request":
            chunk = message.get("body", b"")
            self._size += len(chunk)
            self._complete = not message.get("more_body", False)
            if self._size > self._limits.body_bytes:
                raise self._refuse(_too_large(self._limits))
            if self._json:
                self._values += values_in(chunk)
                if self._values > MAX_VALUES:
                    raise self._refuse(
                        TooLargeError(
                            f"The body has more than {MAX_VALUES:,} values; send images as base64, not as numbers."
                        )
                    )
        return message

    @property
    def seconds_left(self) -> float:
        """Seconds within which the next message must arrive."""
        limits = self._limits
        end = min(limits.body_s, limits.body_grace_s + self._size / limits.body_rate)
        return self._began + end - self._clock()

    def _refuse(self, error: ServingError) -> ServingError:
        self.refusal = error
        return error


def check_length(declared: str | None, limits: Limits) -> None:
    """Refuse a body by its declared length, before it is read. Raises `TooLargeError`."""
    if declared is not None and declared.isdigit() and int(declared) > limits.body_bytes:
        raise _too_large(limits)


def _too_large(limits: Limits) -> TooLargeError:
    return TooLargeError(f"The body is larger than {limits.body_bytes / 2**20:g} MiB, the limit; compress the images.")


def _slow(limits: Limits) -> SlowBodyError:
    return SlowBodyError(
        f"The body did not arrive in time: it may take {limits.body_s:g} seconds in all, and after {limits.body_grace_s:g} "
        f"seconds at least {limits.body_rate:,} bytes per second must arrive; send it faster, or compress the images."
    )


def values_in(data: bytes) -> int:
    """About how many values a part of a JSON text has; each takes far more memory than its text."""
    return sum(data.count(sign) for sign in (b",", b"[", b"{"))


def too_many_values(data: bytes) -> bool:
    """Whether a JSON text has more values than a body may have."""
    return values_in(data) > MAX_VALUES


class HeadAndEncodingMiddleware:
    """Answers HEAD like GET without the body, and refuses a body with a `Content-Encoding`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Raises `CompressedError`."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            await self._head({**scope, "method": "GET"}, receive, send)
            return
        if scope["type"] == "http" and scope["method"] not in NO_BODY:
            check_encoding(Headers(scope=scope).getlist("content-encoding"))
        await self.app(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = asyncio.Event()

        async def receive_until_answered() -> Message:
            """Report the client as gone once it has its answer, so that a stream of events ends."""
            leaving, message = asyncio.create_task(answered.wait()), asyncio.ensure_future(receive())
            try:
                await asyncio.wait({leaving, message}, return_when=asyncio.FIRST_COMPLETED)
                return {"type": "http.disconnect"} if answered.is_set() else message.result()
            finally:
                leaving.cancel()
                message.cancel()

        async def send_head(message: Message) -> None:
            if answered.is_set() or message["type"] != "http.response.start":
                return
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            answered.set()

        await self.app(scope, receive_until_answered, send_head)


def check_encoding(stated: list[str]) -> None:
    """Refuse a compressed body, whose length does not limit its size. Raises `CompressedError`."""
    codings = [coding.strip().lower() for value in stated for coding in value.split(",")]
    odd = [coding for coding in codings if coding not in ("", "identity")]
    if odd:
        raise CompressedError(
            f"The body has the content-encoding {', '.join(odd)[:60]!r}, which is not supported; send it uncompressed "
            "(images are compressed already)."
        )
