"""The gate: what every request passes before a route sees it. Request id, key, rate, requests at once, size and pace of
the body, unforeseen errors.

It is plain ASGI: Starlette's `BaseHTTPMiddleware` hides a client that left, and its own body limit, like FastAPI's, answers
in plain text. The key is checked before the body is read, so that a stranger can't make the server hold megabytes.
"""

from __future__ import annotations

import re
from contextlib import ExitStack

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from careedit_deployments.config import Limits
from careedit_deployments.errors import UnavailableError
from careedit_deployments.http import docs, pages
from careedit_deployments.http.auth import Authenticator
from careedit_deployments.http.body import Body, check_length
from careedit_deployments.http.limits import Limiter
from careedit_deployments.http.openapi import FILES
from careedit_deployments.jobs.stopping import Stopping
from careedit_deployments.problems import Problem, problem_of, respond
from careedit_deployments.state.records import new_id
from careedit_deployments.telemetry.logs import set_request_id
from careedit_deployments.telemetry.metrics import Metrics
from careedit_deployments.telemetry.tracing import Tracing

OPEN = frozenset({"/healthz", "/readyz", "/openapi.json"}) | docs.PATHS | pages.PATHS
"""Paths that need no key and count for no limit; the pages hold no data of their own."""

_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Gate:
    """The outermost middleware of the app."""

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
    ) -> None:
        self.app = app
        self._authenticator = authenticator
        self._limiter = limiter
        self._limits = limits
        self._metrics = metrics
        self._tracing = tracing
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; what is no HTTP passes through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        _drop_bad_trace(scope)
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else new_id("req")
        scope["careedit.request_id"] = request_id
        set_request_id(request_id)
        started = False
        form = headers.get("content-type", "").lower().startswith("multipart/")
        body = Body(receive, self._limits, json=not form)

        async def tell(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).setdefault("x-request-id", request_id)
            await send(message)

        async def told(message: Message) -> None:
            # An answer to a body that was refused passes only if the app knows why: FastAPI takes any error for a bad body.
            if started or body.refusal is None or message.get("status") == problem_of(body.refusal).status:
                await tell(message)

        problem: Problem | None = None
        path = _route_path(scope)
        try:
            with self._tracing.span("request", dict(headers), kind="server", method=scope["method"], path=path) as span:
                scope["careedit.trace_headers"] = span.headers
                with ExitStack() as held:
                    if path.startswith(FILES):  # the address itself is the permission
                        held.enter_context(self._limiter.fetch())
                    elif path not in OPEN:
                        await self._admit(scope, headers, held)
                    await self.app(scope, body.receive, told)
        except ClientDisconnect:
            if body.refusal is None:
                return  # nobody is left to be told anything
        except Exception as error:  # noqa: BLE001 - told as a 500 without internals, and logged
            problem = problem_of(body.refusal or error)  # logs what was not foreseen
        if body.refusal is not None and not started:
            problem = problem_of(body.refusal)
        if problem is not None:
            if problem.refusal is not None:
                self._metrics.refused(problem.refusal)
            if not started:
                await respond(problem)(scope, receive, tell)

    async def _admit(self, scope: Scope, headers: Headers, held: ExitStack) -> None:
        """Let a request in, or raise; what it holds until its end is put into `held`."""
        if self._stopping.begun:
            raise UnavailableError("The server is stopping; send the request again in a moment.")
        held.enter_context(self._limiter.place())
        caller = await self._authenticator.caller(headers.get("authorization"))
        scope["careedit.caller"] = caller
        held.enter_context(self._limiter.request(caller))
        if scope["method"] == "POST":  # what makes work; looking at a job as often as one likes is no load
            self._limiter.take(caller)
        check_length(headers.get("content-length"), self._limits)


def _route_path(scope: Scope) -> str:
    """The path without the prefix under which the app is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _drop_bad_trace(scope: Scope) -> None:
    """Take out a `traceparent` that is none (W3C Trace Context, 3.2), and the state that belongs to it."""
    headers = Headers(scope=scope)
    if "traceparent" in headers and not _PARENT.fullmatch(headers["traceparent"]):
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in (b"traceparent", b"tracestate")]
