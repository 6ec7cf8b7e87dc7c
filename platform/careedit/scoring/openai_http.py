"""Requests to a chat endpoint, bounded in time, bytes and attempts: each ends in a reply or in a sentence."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from random import Random
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import httpx2
from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI
from PIL import Image
from pydantic import Field, JsonValue, field_validator

from careedit.errors import InputError
from careedit.files import png_data_url
from careedit.record import Record
from careedit.scoring.sent import digest_of_request

MAX_BYTES = 1 << 20
"""Longest reply that is read, in bytes; a usual reply has a few kilobytes."""
HEADERS = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
"""Headers of every request; the key is added to them."""
BUSY = (408, 409, 425, 429)
"""Status codes after which another attempt may succeed, in addition to all from 500 on."""

Read = TypeVar("Read")


class EndpointConfig(Record):
    """An OpenAI-compatible chat endpoint: its address, limits and retries."""

    base_url: str
    """Address of the endpoint, up to and including the version, e.g. "http://localhost:8000/v1"."""
    model: str = Field(min_length=1)
    """The endpoint's name of the model; it must accept images."""
    revision: str = "unknown"
    """Version of the model, if it is known. It is part of the judge's identity; default "unknown"."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; None: the endpoint needs no key."""
    answers: Literal["auto", "logprobs", "json"] = "auto"
    """How the model gives probabilities. "logprobs": of the first token; "json": as a number that it writes; "auto"
    (default): by logprobs if the endpoint offers them."""
    timeout: float = Field(default=60.0, gt=0, le=3600)
    """Time limit of one attempt in seconds, from connecting to the last byte; default 60."""
    attempts: int = Field(default=4, ge=1, le=20)
    """Maximum number of attempts per question; default 4."""
    backoff: float = Field(default=0.5, ge=0, le=3600)
    """Wait before the second attempt in seconds, default 0.5. It doubles per attempt, less a random part of up to half."""
    max_backoff: float = Field(default=30.0, ge=0, le=3600)
    """Longest wait between two attempts in seconds, default 30. An endpoint that asks for a longer wait fails."""
    concurrency: int = Field(default=8, ge=1, le=1024)
    """Maximum number of questions that are sent at the same time; default 8."""
    seed: int = 0
    """Seed of the random waits; it is also sent as the sampling seed."""
    extra: Mapping[str, JsonValue] = Field(default_factory=dict)
    """Fields that replace or extend those of every request, e.g. `chat_template_kwargs`; None removes a field."""

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if any(mark in value for mark in "@?#"):
            # Errors and logs quote the URL, so it must not hold a secret.
            raise InputError(
                "base_url has a user name, a query or a fragment; give the plain address, and a key by api_key_env."
            )
        try:
            parts = urlsplit(value)
            httpx2.URL(value)
            right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except (ValueError, httpx2.InvalidURL):
            right = False
        if not right:
            raise InputError(
                f"base_url {value!r} is not an http(s) address; give one such as http://localhost:8000/v1."
            )
        return value.rstrip("/")


class Unanswered(Exception):
    """A request without an answer; the message says why."""

    def __init__(self, why: str, *, again: bool = False, after: float | None = None, status: int | None = None) -> None:
        super().__init__(why)
        self.again = again
        """Whether another attempt may succeed."""
        self.after = after
        """Seconds that the endpoint asks to wait; None if it does not say."""
        self.status = status
        """HTTP status of the reply; None if there was no reply."""


@dataclass(frozen=True)
class Time:
    """The clock that the client uses; tests replace it."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits for a number of seconds."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    """The current time, which a Retry-After date is compared with."""


class Endpoint:
    """A chat endpoint and its key, which goes into one header and nowhere else."""

    def __init__(self, config: EndpointConfig, time: Time | None = None) -> None:
        """Raises `InputError` if the key's environment variable holds no usable key; sends nothing yet."""
        self.config, self._key, self._time = config, _read_key(config.api_key_env), time or Time()
        self._url = f"{config.base_url}/chat/completions"

    def body(self, content: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """The document of one request: a user's message with `content`, then `fields` and the configured extra fields."""
        body = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "seed": self.config.seed,
            **fields,
            **self.config.extra,
        }
        return {name: value for name, value in body.items() if value is not None}

    def settings(self, body: Mapping[str, Any]) -> Mapping[str, str]:
        """Where `body` is posted and what is sent, without the key; see `careedit.scoring.sent`."""
        return {
            "endpoint": str(httpx2.URL(self._url)),
            "request": digest_of_request({"body": body, "headers": HEADERS}),
        }

    def client(self) -> AsyncOpenAI:
        """A client for one batch of questions; it follows no redirect, which would carry the key elsewhere."""
        headers = HEADERS if self._key is None else {**HEADERS, "authorization": f"Bearer {self._key}"}
        limits = httpx2.Limits(max_connections=self.config.concurrency)
        http = _BoundedClient(
            headers=headers, timeout=self.config.timeout, limits=limits, follow_redirects=False, verify=_trust()
        )
        # The SDK needs some key, or takes OPENAI_API_KEY; `http` sends its own headers only.
        return AsyncOpenAI(base_url=self.config.base_url, api_key="unused", max_retries=0, http_client=http)

    async def post_all(
        self,
        client: AsyncOpenAI,
        bodies: Sequence[Callable[[], Mapping[str, Any]]],
        read: Callable[[bytes], Read],
    ) -> list[Read | Unanswered]:
        """What `read` finds in the reply to each of `bodies`, or the reason why it has no answer, in their order.

        Each body is built when its request begins, so that no more pictures are encoded at once than are sent.
        """
        free = asyncio.Semaphore(self.config.concurrency)

        async def one(index: int) -> Read | Unanswered:
            async with free:
                try:
                    # A random generator per question, so that no question's waits depend on another's.
                    return read(await self.post(client, bodies[index](), Random(f"{self.config.seed}:{index}")))
                except Unanswered as failure:
                    return failure

        return await asyncio.gather(*(one(index) for index in range(len(bodies))))

    async def post(self, client: AsyncOpenAI, body: Mapping[str, Any], rng: Random) -> bytes:
        """The reply to `body` of an attempt that succeeded; raises `Unanswered`. `rng` draws the waits' jitter."""
        content = json.dumps(body).encode()  # in ASCII, because the SDK refuses half of a surrogate pair in a text
        for attempt in range(1, self.config.attempts + 1):
            try:
                return await self._once(client, content)
            except Unanswered as failure:
                if not failure.again:
                    raise
                if attempt == self.config.attempts:
                    tries = f"all {attempt} attempts failed" if attempt > 1 else "one attempt was allowed"
                    raise Unanswered(f"{failure} ({tries}).", status=failure.status) from None
                await self._time.sleep(self._pause(attempt, failure, rng))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _pause(self, attempt: int, failure: Unanswered, rng: Random) -> float:
        longest = self.config.max_backoff
        if failure.after is not None and failure.after > longest:
            raise Unanswered(
                f"{failure}, and asks to wait {failure.after:.0f} s where max_backoff is {longest:g} s; try later.",
                status=failure.status,
            )
        pause: float = min(longest, self.config.backoff * 2 ** (attempt - 1)) * rng.uniform(0.5, 1.0)
        return max(pause, failure.after or 0.0)

    async def _once(self, client: AsyncOpenAI, content: bytes) -> bytes:
        try:
            # The SDK's own timeout begins again with each byte; this one is for the whole attempt.
            async with asyncio.timeout(self.config.timeout):
                response = await client.post("/chat/completions", content=content, cast_to=httpx2.Response)
        except (TimeoutError, APITimeoutError):
            raise Unanswered(
                f"The endpoint {self._url} gave no whole reply within {self.config.timeout:g} s", again=True
            ) from None
        except APIStatusError as error:
            raise self._refusal(error) from None
        except APIConnectionError as error:
            reason = self._plain(str(error.__cause__)) or type(error.__cause__).__name__
            raise Unanswered(f"The endpoint {self._url} cannot be reached: {reason}", again=True) from None
        data = response.content
        # Some servers repeat the key, and parts of a reply end up in errors.
        return data if self._key is None else data.replace(self._key.encode(), b"[key]")

    def _refusal(self, error: APIStatusError) -> Unanswered:
        """The error for a reply with an error status."""
        response, status, model = error.response, error.status_code, self.config.model
        said = self._plain(_message(error.body))
        tail = f" ({said})" if said else ""
        if status == 401 and self._key is None:
            why = f"The endpoint needs a key, and none is configured{tail}; set api_key_env to the variable that holds it."
        elif status in (401, 403):
            why = (
                f"The endpoint does not accept the key (status {status}){tail}; check api_key_env and the key's rights."
            )
        elif status == 404:
            why = f"The endpoint does not know the model {model!r} or the address{tail}; check model and base_url."
        elif 300 <= status < 400:
            place = self._plain(response.headers.get("location", "nowhere"))
            why = f"The endpoint redirects to {place}, which is not followed; give its final address as base_url."
        elif status in BUSY or status >= 500:
            after = _retry_after(response.headers.get("retry-after"), self._time.now())
            return Unanswered(
                f"The endpoint answered with status {status}{tail}", again=True, after=after, status=status
            )
        else:
            why = f"The endpoint refused the question with status {status}{tail}; check the model, pictures and text."
        return Unanswered(why, status=status)

    def _plain(self, text: str) -> str:
        """Text of another party on one short line, without the key, which some servers repeat."""
        if self._key is not None:
            text = text.replace(self._key, "[key]")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200].rstrip(".")


def picture_part(image: Image.Image) -> dict[str, Any]:
    """A picture in a message: the data URL of its PNG."""
    return {"type": "image_url", "image_url": {"url": png_data_url(image.convert("RGB"))}}


def run(work: Coroutine[Any, Any, Read]) -> Read:
    """The result of `work`, also where the caller's thread already runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)  # in this thread, so that Ctrl-C ends it
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _read_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(f"The environment variable {variable} has no key for the endpoint; set it.")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise InputError(f"The environment variable {variable} has more than a key; set it to the key alone.")
    return key


@cache
def _trust() -> ssl.SSLContext:
    """The trusted certificates, read once: reading them takes longer than many requests."""
    return httpx2.create_ssl_context()


class _BoundedClient(httpx2.AsyncClient):
    """Sends its own headers only, and reads at most `MAX_BYTES` of a reply, which it does not decompress."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """See `httpx2.AsyncClient.send`; raises `Unanswered` for a longer reply."""
        # The SDK adds headers about this machine and, from variables such as OPENAI_CUSTOM_HEADERS, the user's account.
        plain = self.build_request(request.method, request.url, content=request.content)
        response = await super().send(plain, **{**options, "stream": True})
        data = bytearray()
        async with aclosing(response):
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > MAX_BYTES:
                    raise Unanswered(
                        f"The endpoint's reply is longer than {MAX_BYTES:,} bytes; check that base_url is a chat API."
                    )
        headers = {name: value for name, value in response.headers.items() if name != "content-encoding"}
        return httpx2.Response(response.status_code, headers=headers, content=bytes(data), request=request)


def _message(document: object) -> str:
    """The message of an error reply, in OpenAI's shape or in those of its imitators; "" if it has no message."""
    found = document.get("message", document.get("detail")) if isinstance(document, dict) else None
    return found if isinstance(found, str) else ""


def _retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds of a Retry-After header: a number or a date (RFC 9110, section 10.2.3); None if it is neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value.strip()[:12])
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())
