"""One POST to a chat endpoint: bounded in time, bytes and attempts; it ends in a document or in a sentence."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from random import Random
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
from pydantic import Field, JsonValue, field_validator

from careedit.errors import InputError
from careedit.record import Record
from careedit.scoring.sent import digest_of_request

MAX_BYTES = 1 << 20
"""Longest reply that is read; the ones that are asked for have a few kilobytes."""
HEADERS = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
"""Of every request; the key comes to them."""
BUSY = (408, 409, 425, 429)
"""Status codes that may pass when asked again, beside all from 500 on."""


class EndpointConfig(Record):
    """An OpenAI-compatible chat endpoint: where it is, and how patient to be with it."""

    base_url: str
    """Up to and including the version, e.g. "http://localhost:8000/v1"."""
    model: str = Field(min_length=1)
    """The endpoint's name of the model; it must take pictures."""
    revision: str = "unknown"
    """What is known of the model's version; part of the judge's identity."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; None: the endpoint needs none."""
    answers: Literal["auto", "logprobs", "json"] = "auto"
    """How probabilities are had: from the first token's, or as a number that the model writes; auto: as offered."""
    timeout: float = Field(default=60.0, gt=0, le=3600)
    """Seconds for one attempt, from connecting to the last byte."""
    attempts: int = Field(default=4, ge=1, le=20)
    """How often a question is sent at most."""
    backoff: float = Field(default=0.5, ge=0, le=3600)
    """Seconds before the second attempt; doubled for each later one, less up to half of it at random."""
    max_backoff: float = Field(default=30.0, ge=0, le=3600)
    """Longest wait between two attempts; an endpoint that asks for more is given up."""
    concurrency: int = Field(default=8, ge=1, le=1024)
    """Questions that are under way at once."""
    seed: int = 0
    """Seed of the waits, and the sampling seed that is sent."""
    extra: Mapping[str, JsonValue] = Field(default_factory=dict)
    """Fields put over those of every request, e.g. `chat_template_kwargs`; None takes a field out."""

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if any(mark in value for mark in "@?#"):
            # A URL is quoted in errors and logs, where no secret may stand.
            raise InputError(
                "base_url holds a user name, a query or a fragment; give the plain address, and a key by api_key_env."
            )
        try:
            parts = urlsplit(value)
            httpx2.URL(value)
            right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except (ValueError, httpx2.InvalidURL):
            right = False
        if not right:
            raise InputError(f"base_url {value!r} is no http address; give one such as http://localhost:8000/v1.")
        return value.rstrip("/")


class Unanswered(Exception):
    """A request that came to nothing; the message is the sentence that says why."""

    def __init__(self, why: str, *, again: bool = False, after: float | None = None, status: int | None = None) -> None:
        super().__init__(why)
        self.again = again
        """Whether another attempt may succeed."""
        self.after = after
        """Seconds that the endpoint asks to wait."""
        self.status = status
        """HTTP status, where there was one."""


@dataclass(frozen=True)
class Time:
    """What the client takes for time; a test puts its own in."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits for seconds."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    """The time that a Retry-After date is compared with."""


class Poster:
    """Posts documents to `config.base_url`/chat/completions; `key` goes into one header and nowhere else."""

    def __init__(self, config: EndpointConfig, key: str | None, time: Time) -> None:
        self.config, self._key, self._time = config, key, time
        self._url = f"{config.base_url}/chat/completions"

    def settings(self, body: Mapping[str, Any]) -> Mapping[str, str]:
        """Where to and what is posted, as `careedit.scoring.sent` wants it; the key is no part of it."""
        return {
            "endpoint": str(httpx2.URL(self._url)),
            "request": digest_of_request({"body": body, "headers": HEADERS}),
        }

    def client(self) -> httpx2.AsyncClient:
        """A client for one batch of questions; a redirect is not followed, as it would carry the key elsewhere."""
        headers = dict(HEADERS)
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        limits = httpx2.Limits(max_connections=self.config.concurrency)
        return httpx2.AsyncClient(
            headers=headers, timeout=self.config.timeout, limits=limits, follow_redirects=False, verify=_trust()
        )

    async def post(self, client: httpx2.AsyncClient, body: Mapping[str, Any], rng: Random) -> bytes:
        """The reply to `body` of an attempt that succeeded; raises `Unanswered`. `rng` draws the waits' jitter."""
        content = json.dumps(body).encode()
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

    async def _once(self, client: httpx2.AsyncClient, content: bytes) -> bytes:
        try:
            # httpx's own timeout starts anew with each byte; this one is for the whole attempt.
            async with asyncio.timeout(self.config.timeout):
                async with client.stream("POST", self._url, content=content) as response:
                    data = await _bounded(response)
        except (TimeoutError, httpx2.TimeoutException):
            raise Unanswered(
                f"The endpoint {self._url} gave no whole reply within {self.config.timeout:g} s", again=True
            ) from None
        except httpx2.HTTPError as error:
            reason = self._plain(str(error)) or type(error).__name__
            raise Unanswered(f"The endpoint {self._url} cannot be reached: {reason}", again=True) from None
        if self._key is not None:  # some servers repeat it, and parts of a reply end up in errors
            data = data.replace(self._key.encode(), b"[key]")
        if response.is_success:
            return data
        raise self._refusal(response, data)

    def _refusal(self, response: httpx2.Response, data: bytes) -> Unanswered:
        """What a reply that is no success means."""
        status, model = response.status_code, self.config.model
        said = self._plain(_message(data))
        tail = f" ({said})" if said else ""
        if status == 401 and self._key is None:
            why = f"The endpoint needs a key and has none{tail}; name the variable that holds it with api_key_env."
        elif status in (401, 403):
            why = (
                f"The endpoint does not accept the key (status {status}){tail}; check api_key_env and the key's rights."
            )
        elif status == 404:
            why = f"The endpoint knows no model {model!r} or no such address{tail}; check model and base_url."
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
        """What somebody else said, on one short line and without the key, which some servers repeat."""
        if self._key is not None:
            text = text.replace(self._key, "[key]")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200].rstrip(".")


@cache
def _trust() -> ssl.SSLContext:
    """The certificates that are trusted; reading them takes longer than many an answer, so it is done once."""
    return httpx2.create_ssl_context()


async def _bounded(response: httpx2.Response) -> bytes:
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > MAX_BYTES:
            raise Unanswered(
                f"The endpoint's reply is longer than {MAX_BYTES:,} bytes; check that base_url is a chat API."
            )
    return bytes(data)


def _message(data: bytes) -> str:
    """The message of an error reply, in OpenAI's shape or in those of its imitators; "" where there is none."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    found = document.get("error", document) if isinstance(document, dict) else None
    if isinstance(found, dict):
        found = found.get("message", found.get("detail"))
    return found if isinstance(found, str) else ""


def _retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds of a Retry-After header: a number or a date (RFC 9110, section 10.2.3); None where it is neither."""
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
