"""Webhooks: signed messages about ended jobs. Format and signature: https://www.standardwebhooks.com.

The database holds the time of the next attempt, so a restart loses no message and repeats none early. A receiver may get a
message twice, because its answer may be lost; both have the same `webhook-id`.

Webhooks go to public addresses, and to private ones only if the configuration lists their host (`careedit.net`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from random import Random

import httpcore2
from standardwebhooks import Webhook

import careedit
from careedit.errors import InputError
from careedit.net import Destinations, GuardedBackend, RefusedHostError
from careedit_deployments.config import JobsConfig
from careedit_deployments.edits.tenancy import check_webhook_host
from careedit_deployments.errors import TenantPolicyError
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.deliveries import WebhookTable
from careedit_deployments.state.records import ANONYMOUS, WebhookRecord
from careedit_deployments.state.tenants import Tenants
from careedit_deployments.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

TIMEOUT_S = 15.0
"""Seconds that a receiver may take to answer, including the time to connect."""
CONNECT_S = 3.0
"""Seconds that looking up a receiver's name, connecting and the TLS handshake may take each."""
AT_ONCE = 8
"""Messages that one replica sends at the same time."""
FIRST_PAUSE_S = 5.0
"""Seconds between the first and the second attempt."""
GROWTH = 8.0
"""Factor between two pauses: 5 s, 40 s, 5 min, 43 min, 5 h 41 min. Each is shortened by up to a quarter, at random."""
MAX_PAUSE_S = 12 * 3600.0
"""Longest pause between two attempts, in seconds."""


def signing_key(secret: str) -> bytes:
    """The key of a secret: base64 after "whsec_", as Standard Webhooks writes it, or else its own bytes.

    Raises `InputError` if it is too short to protect anything.
    """
    key = secret.encode("utf-8")
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise InputError("The webhook secret is no base64 after 'whsec_'; correct it.") from None
    if len(key) < 16:
        raise InputError("The webhook secret has fewer than 16 bytes; make one with: openssl rand -base64 32.")
    return key


def new_secret() -> str:
    """A new secret of an endpoint, as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode("ascii")


def key_from(config: JobsConfig) -> bytes | None:
    """The signing key that a configuration names, or None. Raises `InputError` for a missing or weak one."""
    if config.webhook_secret_env is None:
        return None
    secret = os.environ.get(config.webhook_secret_env)
    if not secret:
        raise InputError(
            f"The variable {config.webhook_secret_env} with the webhook secret is not set; set it, or "
            "remove jobs.webhook_secret_env."
        )
    return signing_key(secret)


def sign(key: bytes, message_id: str, timestamp: int, payload: str) -> str:
    """The value of `webhook-signature`; `timestamp` is in seconds since 1970, UTC."""
    return Webhook(key).sign(message_id, datetime.fromtimestamp(timestamp, UTC), payload)


class WebhookSender:
    """Sends the webhooks that are due, and stores the result of each attempt.

    A tenant may have as many messages in sending as senders are free, so alone half of them: receivers that do not answer
    hold no sender of another tenant.
    """

    def __init__(
        self,
        table: WebhookTable,
        key: bytes | None,
        config: JobsConfig,
        metrics: Metrics,
        *,
        tenants: Tenants | None = None,
        clock: Callable[[], float] = unix_time,
        timeout_s: float = TIMEOUT_S,
        first_pause_s: float = FIRST_PAUSE_S,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`key` signs messages to addresses of single jobs; None: the server has none. `tenants` knows to which hosts each tenant's
        messages may go. `wake` is called when a sender is free."""
        self._table, self._key, self._config, self._metrics, self._clock = table, key, config, metrics, clock
        self._timeout_s, self._first_pause_s = timeout_s, first_pause_s
        self._tenants, self._wake, self._sending = tenants, wake, Counter[str]()
        self._random = Random()
        self._pool = httpcore2.AsyncConnectionPool(
            network_backend=GuardedBackend(webhook_destinations(config.webhook_hosts))
        )

    async def claim(self) -> WebhookRecord | None:
        """Claim the next message that is due, if any."""
        free = AT_ONCE - self._sending.total()
        crowded = [owner for owner, count in self._sending.items() if count >= free and owner != ANONYMOUS]
        webhook = await self._table.claim(lease_s=4 * self._timeout_s, without=crowded)
        if webhook is not None:
            self._sending[webhook.owner] += 1
        return webhook

    async def send(self, webhook: WebhookRecord) -> None:
        """Send a claimed message once, and store the result."""
        try:
            await self._send(webhook)
        finally:
            self._sending -= Counter([webhook.owner])  # drops counts of zero
            self._wake()

    async def _send(self, webhook: WebhookRecord) -> None:
        keys = await self._keys_of(webhook)
        if not keys:
            gone = (
                "The endpoint was deleted" if webhook.endpoint else "The server has no key for addresses of single jobs"
            )
            await self._table.settle(webhook, error=f"{gone}; nothing was sent.")
            self._metrics.webhook("given_up")
            return
        try:
            if self._tenants is not None:  # the policy may be newer than the address
                check_webhook_host(await self._tenants.policy(webhook.owner), webhook.url)
            async with asyncio.timeout(self._timeout_s):
                status = await self._post(webhook, keys)
        except (RefusedHostError, TenantPolicyError) as error:
            await self._table.settle(webhook, error=str(error))
            self._metrics.webhook("given_up")
            return
        except TimeoutError:
            problem, again = f"The receiver took longer than {self._timeout_s:g} s.", True
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError) as error:
            problem, again = f"The receiver cannot be reached ({str(error)[:150] or type(error).__name__}).", True
        else:
            if 200 <= status < 300:
                await self._table.settle(webhook)
                self._metrics.webhook("delivered")
                return
            problem, again = (
                f"The receiver answered {status}.",
                status != 410,
            )  # 410 means that the receiver wants no more messages
        attempt = webhook.attempt - webhook.resent_after
        if not again or attempt >= self._config.webhook_attempts:
            logger.warning("Giving up the webhook %s after %d attempts: %s", webhook.id, webhook.attempt, problem)
            await self._table.settle(webhook, error=problem)
            self._metrics.webhook("given_up")
        else:
            await self._table.settle(webhook, error=problem, retry_in_s=self.pause(attempt))
            self._metrics.webhook("retry")

    def pause(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt`, counted from 1."""
        longest = min(MAX_PAUSE_S, self._first_pause_s * GROWTH ** (attempt - 1))
        return longest * (1 - 0.25 * self._random.random())

    async def _keys_of(self, webhook: WebhookRecord) -> list[bytes]:
        if webhook.endpoint is not None:
            return [signing_key(secret) for secret in await self._table.secrets(webhook.endpoint)]
        return [] if self._key is None else [self._key]

    async def _post(self, webhook: WebhookRecord, keys: Sequence[bytes]) -> int:
        """Status code of the answer. The body is not read."""
        timestamp = int(self._clock())
        headers = {
            "content-type": "application/json",
            "user-agent": f"careedit/{careedit.__version__}",
            "webhook-id": webhook.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(sign(key, webhook.id, timestamp, webhook.payload) for key in keys),
            "connection": "close",
        }
        body = webhook.payload.encode("utf-8")
        limits = {"timeout": {"connect": CONNECT_S}}
        async with self._pool.stream(
            "POST", webhook.url, headers=list(headers.items()), content=body, extensions=limits
        ) as response:
            return response.status

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


def webhook_destinations(hosts: Collection[str]) -> Destinations:
    """Where webhooks may go: public addresses, and `hosts`."""
    return Destinations(
        frozenset(host.lower() for host in hosts),
        "The webhook",
        "https://example.org/hooks",
        "an operator can allow it in jobs.webhook_hosts",
    )


def check_webhook_url(url: str, hosts: Collection[str]) -> None:
    """Raise `InputError` for a URL that no webhook may have. Names are not resolved here, but before sending."""
    webhook_destinations(hosts).check(url)
