"""Open requests end when their API key is revoked or expires, in every ingress replica within `CHECK_S` seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from careedit_deployments.errors import AuthError
from careedit_deployments.http.auth import Caller
from careedit_deployments.state.tenants import Keys

CHECK_S = 1.0
"""Seconds between two checks of the keys of open requests: a stream goes on for this long after a revocation."""
TOUCH_S = 30.0
"""Seconds between two writes of the time at which keys were used. A write per request would wait for other writers."""


class Revocation:
    """Watches the keys of the open requests of one process."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._open: dict[str, set[asyncio.Timeout]] = {}
        self._used: set[str] = set()

    @asynccontextmanager
    async def while_valid(self, caller: Caller) -> AsyncIterator[None]:
        """Cancel the block when the caller's key is no longer valid, and raise `AuthError` from it."""
        if caller.key is None:
            yield
            return
        self._used.add(caller.key)
        limits = self._open.setdefault(caller.key, set())
        try:
            async with asyncio.timeout(None) as limit:
                limits.add(limit)
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise AuthError(
                "The API key was revoked or has expired; send the request again with a valid one."
            ) from None
        finally:
            limits.discard(limit)
            if not limits and self._open.get(caller.key) is limits:
                del self._open[caller.key]

    async def check(self) -> None:
        """End the open requests whose key is no longer valid."""
        for key in await self._keys.invalid(self._open) if self._open else ():
            for limit in self._open.get(key, ()):
                if not limit.expired():
                    limit.reschedule(asyncio.get_running_loop().time())

    async def touch(self) -> None:
        """Store which keys were used since the last call, or are in use now."""
        used, self._used = self._used | set(self._open), set()
        if used:
            await self._keys.touch(used)
