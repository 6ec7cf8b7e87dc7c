"""API keys: sent as `Authorization: Bearer KEY`, stored only as hashes."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from careedit.record import Record
from careedit_deployments.config import ServeConfig
from careedit_deployments.errors import AuthError
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.logs import Keys
from careedit_deployments.state.records import ANONYMOUS, KeyRecord, new_id

PREFIX = "ce-"
"""Prefix of every key, so that scanners recognize a leaked one."""


class Caller(Record):
    """The caller of a request."""

    id: str = ANONYMOUS
    """Id of the API key, which owns what the request creates. Default: the anonymous caller."""
    requests_per_minute: int | None = None
    """Maximum number of requests per minute for this key. None: `limits.requests_per_minute`."""
    concurrent_requests: int | None = None
    """Maximum number of edits at once for this key. None: `limits.concurrent_requests`."""


def make_key(
    name: str, *, requests_per_minute: int | None = None, concurrent_requests: int | None = None
) -> tuple[str, KeyRecord]:
    """A new key, which is shown only once, and its record."""
    key = PREFIX + secrets.token_urlsafe(32)
    record = KeyRecord(
        id=new_id("key"),
        sha256=hash_key(key),
        name=name,
        requests_per_minute=requests_per_minute,
        concurrent_requests=concurrent_requests,
        created=unix_time(),
    )
    return key, record


def hash_key(key: str) -> str:
    """SHA-256 of a key in hex. A key has 256 random bits, so a slow hash and a salt would add nothing."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def keys_required(config: ServeConfig) -> bool:
    """Whether callers need a key: as configured, by default if other machines can reach the server."""
    return not config.http.is_loopback if config.auth.required is None else config.auth.required


class Authenticator:
    """Finds the caller of a request by its API key."""

    def __init__(self, keys: Keys, *, required: bool) -> None:
        self._keys = keys
        self.required = required
        """Whether a request without a valid key is refused."""

    async def caller(self, authorization: str | None) -> Caller:
        """The caller, by the value of the `Authorization` header. Raises `AuthError`.

        If no key is required, an unknown key is ignored: OpenAI's clients always send one.
        """
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            if self.required:
                raise AuthError("This server needs an API key; send it as 'Authorization: Bearer KEY'.")
            return Caller()
        digest = hash_key(key)
        record = await self._keys.find(digest)
        if record is None or not hmac.compare_digest(record.sha256, digest) or record.revoked is not None:
            if self.required:
                raise AuthError("The API key is unknown or was revoked; ask the operator for a valid one.")
            return Caller()
        return Caller(
            id=record.id,
            requests_per_minute=record.requests_per_minute,
            concurrent_requests=record.concurrent_requests,
        )
