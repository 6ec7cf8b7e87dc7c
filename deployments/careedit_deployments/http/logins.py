"""Who calls, by the API key; and failed logins: limited per address, and reported in the log and the audit log, without the keys.

A valid key is never refused, even if wrong keys come from the same address, as behind a proxy that hides the addresses of its
clients. Above the limit, wrong keys cost no query each: all valid hashes are read together, at most every `REFRESH_S` seconds.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time
from collections import Counter
from collections.abc import Callable

from careedit_deployments.errors import AuthError, RateLimitError
from careedit_deployments.http.auth import Caller, hash_key
from careedit_deployments.http.limits import Buckets
from careedit_deployments.state.audit import AuditLog
from careedit_deployments.state.tenant_policy import policy_for
from careedit_deployments.state.tenants import Keys

logger = logging.getLogger(__name__)

PER_MINUTE = 20
"""Wrong keys per address and minute that are looked up; further ones get status 429."""
REFRESH_S = 5.0
"""Seconds for which the hashes of all valid keys are kept while an address is above the limit."""
REPORT_S = 60.0
"""Seconds between two reports."""
MAX_REPORTED = 20
"""Number of addresses with an entry of their own in a report; the others share one."""
MAX_COUNTED = 10_000
"""Number of addresses that are counted apart between two reports."""
OTHERS = "other addresses"


class FailedLogins:
    """Counts wrong keys by the address from which they come; an IPv6 network of 64 bits counts as one address."""

    def __init__(self, keys: Keys, audit: AuditLog, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys, self._audit, self._clock = keys, audit, clock
        self._buckets = Buckets(clock)
        self._failed: Counter[str] = Counter()
        self._valid: frozenset[str] = frozenset()
        self._read_at: float | None = None

    async def check(self, address: str | None, sha256: str) -> None:
        """Raise `RateLimitError` for a wrong key from an address above the limit."""
        wait = self._buckets.wait(network_of(address), PER_MINUTE, take=False)
        if not wait:
            return
        if self._read_at is None or self._clock() - self._read_at > REFRESH_S:
            self._valid, self._read_at = await self._keys.hashes(), self._clock()
        if sha256 not in self._valid:
            self._count(network_of(address))
            raise RateLimitError(
                f"Too many wrong API keys came from your address; wait {wait:.0f} seconds, or send a valid key.",
                retry_after=wait,
            )

    def failed(self, address: str | None) -> None:
        """Count a wrong key."""
        self._buckets.wait(network_of(address), PER_MINUTE)
        self._count(network_of(address))

    async def report(self) -> None:
        """Log and audit the failures since the last report."""
        failed, self._failed = self._failed, Counter()
        rest = Counter({OTHERS: failed.pop(OTHERS, 0)})
        for address, count in failed.most_common():
            rest[address if len(rest) <= MAX_REPORTED else OTHERS] += count
        for address, count in rest.items():
            if count:
                logger.warning("%d requests with a wrong API key came from %s.", count, address)
                await self._audit.add(address, "login.failed", "", requests=count)

    def _count(self, address: str) -> None:
        self._failed[address if address in self._failed or len(self._failed) < MAX_COUNTED else OTHERS] += 1


class Authenticator:
    """Finds the caller of a request by its API key."""

    def __init__(self, keys: Keys, failures: FailedLogins, *, required: bool) -> None:
        self._keys, self._failures = keys, failures
        self.required = required
        """Whether a request without a valid key is refused."""

    async def caller(self, authorization: str | None, address: str | None = None) -> Caller:
        """The caller, by the value of the `Authorization` header; `address` is where the request comes from.

        Raises `AuthError`, or `RateLimitError` after many wrong keys from the address. If no key is required, an unknown key
        is ignored: OpenAI's clients always send one.
        """
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            if self.required:
                raise AuthError("This server needs an API key; send it as 'Authorization: Bearer KEY'.")
            return Caller()
        digest = hash_key(key)
        if self.required:
            await self._failures.check(address, digest)
        found = await self._keys.find(digest)
        if found is None or not hmac.compare_digest(found.key.sha256, digest):
            if self.required:
                self._failures.failed(address)
                raise AuthError("The API key is unknown, was revoked or has expired; ask the operator for a valid one.")
            return Caller()
        return Caller(
            id=found.tenant.id,
            key=found.key.id,
            scopes=found.key.scopes,
            clear_names=found.tenant.clear_names,
            policy=policy_for(found.tenant.id, found.tenant.policy),
            requests_per_minute=found.tenant.requests_per_minute,
            concurrent_requests=found.tenant.concurrent_requests,
        )


def network_of(address: str | None) -> str:
    """The address, or its network of 64 bits if it is an IPv6 address; "unknown" if the server does not know it."""
    try:
        known = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if known.version == 6:
        return str(known.ipv4_mapped or ipaddress.ip_network((known, 64), strict=False))
    return str(known)
