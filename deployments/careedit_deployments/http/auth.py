"""Who calls: API keys, sent as `Authorization: Bearer KEY`, kept only as hashes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from careedit.record import Record
from careedit_deployments.config import ServeConfig
from careedit_deployments.errors import AuthError
from careedit_deployments.state.logs import Keys
from careedit_deployments.state.records import ANONYMOUS, KeyRecord, new_id

PREFIX = "ce-"
"""How our keys start, so that a leaked one is recognised."""


class Caller(Record):
    """Who makes a request."""

    id: str = ANONYMOUS
    """Id of the API key: the owner of what the request makes."""
    requests_per_minute: int | None = None
    """The key's own limit; None: the configuration's."""
    concurrent_requests: int | None = None
    """The key's own limit; None: the configuration's."""


def make_key(
    name: str, *, requests_per_minute: int | None = None, concurrent_requests: int | None = None
) -> tuple[str, KeyRecord]:
    """A fresh key, to be shown once, and what is kept of it."""
    key = PREFIX + secrets.token_urlsafe(32)
    record = KeyRecord(
        id=new_id("key"),
        sha256=hash_key(key),
        name=name,
        requests_per_minute=requests_per_minute,
        concurrent_requests=concurrent_requests,
        created=time.time(),
    )
    return key, record


def hash_key(key: str) -> str:
    """Hex SHA-256. A key holds 256 random bits, so a slow hash and a salt would add nothing."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def keys_required(config: ServeConfig) -> bool:
    """Whether a key is needed: as configured, or else wherever other machines can reach the server."""
    return not config.http.is_loopback if config.auth.required is None else config.auth.required


class Authenticator:
    """Finds out who calls."""

    def __init__(self, keys: Keys, *, required: bool) -> None:
        self._keys = keys
        self.required = required
        """Whether nobody may call without a good key."""

    async def caller(self, authorization: str | None) -> Caller:
        """The caller by the header's value. Raises `AuthError`.

        Where no key is required, one that nobody knows counts as none: OpenAI's clients always send something.
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
                raise AuthError("The API key is unknown or was revoked; ask the operator for a good one.")
            return Caller()
        return Caller(
            id=record.id,
            requests_per_minute=record.requests_per_minute,
            concurrent_requests=record.concurrent_requests,
        )
