"""API keys: sent as `Authorization: Bearer KEY`, stored only as hashes. Each belongs to a tenant and has scopes."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from typing import Any

from careedit.record import Record
from careedit_deployments.config import ServeConfig
from careedit_deployments.errors import ScopeError
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.records import ANONYMOUS, new_id
from careedit_deployments.state.tenant_policy import OPERATOR, TenantPolicy
from careedit_deployments.state.tenant_records import SCOPES, KeyRecord, Scope, TenantRecord

PREFIX = "ce-"
"""Prefix of every key, so that scanners recognize a leaked one."""

ADMIN_PATHS = ("/v1/users", "/v1/webhooks")
"""Routes that concern the whole tenant, whatever their method."""
OPERATOR_PATHS = ("/v1/arms",)
"""Routes that show something of all tenants, whatever their method."""

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Caller(Record):
    """The caller of a request."""

    id: str = ANONYMOUS
    """Id of the tenant, which owns what the request creates. Default: the anonymous caller."""
    key: str | None = None
    """Id of the API key of the request. None: the anonymous caller has no key."""
    scopes: tuple[Scope, ...] = SCOPES
    """What the caller may do; default everything."""
    clear_names: bool = False
    """Whether users' names are stored in clear. Default: as pseudonyms."""
    policy: TenantPolicy = OPERATOR
    """What the caller may do. Default: what the configuration allows."""
    requests_per_minute: int | None = None
    """Maximum number of requests per minute for this tenant. None: `limits.requests_per_minute`."""
    concurrent_requests: int | None = None
    """Maximum number of edits at once for this tenant. None: `limits.concurrent_requests`."""

    @property
    def actor(self) -> str:
        """The caller's name in the audit log: the key, which is one of several of its tenant."""
        return self.key or self.id


def make_tenant(name: str, **fields: Any) -> TenantRecord:
    """The record of a new tenant; `fields` are further fields of `TenantRecord`."""
    return TenantRecord(id=new_id("tenant"), name=name, created=unix_time(), **fields)


def make_key(
    name: str, tenant: str, *, scopes: Collection[Scope] = SCOPES, expires: float | None = None
) -> tuple[str, KeyRecord]:
    """A new key of the tenant with this id, which is shown only once, and its record."""
    key = PREFIX + secrets.token_urlsafe(32)
    record = KeyRecord(
        id=new_id("key"),
        tenant=tenant,
        sha256=hash_key(key),
        name=name,
        scopes=tuple(scope for scope in SCOPES if scope in scopes),
        created=unix_time(),
        expires=expires,
    )
    return key, record


def hash_key(key: str) -> str:
    """SHA-256 of a key in hex. A key has 256 random bits, so a slow hash and a salt would add nothing."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def keys_required(config: ServeConfig) -> bool:
    """Whether callers need a key: as configured, by default if other machines can reach the server."""
    return not config.http.is_loopback if config.auth.required is None else config.auth.required


def check_scope(caller: Caller, method: str, path: str) -> None:
    """Raise `ScopeError` unless the caller may use this method on this path."""
    scope: Scope = "read" if method in _READING else "edit"
    if path.startswith(ADMIN_PATHS):
        scope = "admin"
    elif path.startswith(OPERATOR_PATHS):
        scope = "operator"
    if scope not in caller.scopes:
        raise ScopeError(
            f"The API key has the scopes {', '.join(caller.scopes)}, and this request needs {scope}; use a key that has it."
        )
