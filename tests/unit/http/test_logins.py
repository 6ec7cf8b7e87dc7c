"""Wrong API keys: limited per address, reported without the keys, and never at the cost of a valid key."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from careedit_deployments.config import StateConfig
from careedit_deployments.errors import AuthError, RateLimitError
from careedit_deployments.http import logins
from careedit_deployments.http.logins import Authenticator, FailedLogins, network_of
from served import a_key
from stores import with_store


def test_wrong_keys_of_an_address_are_limited_and_reported_and_valid_ones_pass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    key, (tenant, record) = a_key("a team")

    async def work(store: Any) -> list[Any]:
        failures = FailedLogins(store.keys, store.audit, clock=lambda: now[0])
        authenticator = Authenticator(store.keys, failures, required=True)
        await store.tenants.add(tenant)
        asked = []
        find = store.keys.find
        store.keys.find = lambda sha256: asked.append(sha256) or find(sha256)

        async def login(sent: str, address: str | None = "192.0.2.1") -> str:
            try:
                return (await authenticator.caller(f"Bearer {sent}", address)).id
            except (AuthError, RateLimitError) as error:
                return f"{type(error).__name__} {getattr(error, 'retry_after', '')}"

        answers = [await login(f"wrong-{i}") for i in range(40)]
        assert answers == ["AuthError "] * 20 + ["RateLimitError 3.0"] * 20
        assert len(asked) == 20, "the others cost no query each"
        assert await login("wrong", "192.0.2.2") == "AuthError "
        await store.keys.add(record)
        assert await login(key) == "RateLimitError 3.0"
        now[0] += logins.REFRESH_S + 0.1
        assert await login(key) == tenant.id, "a valid key passes, also from an address above the limit"
        for i in range(30):
            await login("wrong", f"2001:db8::{i:x}")
        assert await login(key, None) == tenant.id
        with caplog.at_level(logging.WARNING):
            await failures.report()
            await failures.report()
        return await store.audit.latest()

    state = StateConfig(database=f"sqlite+aiosqlite:///{tmp_path}/careedit.db")
    entries = with_store(state)(lambda store: asyncio.wait_for(work(store), 60))
    assert {entry.actor: entry.detail for entry in entries if entry.action == "login.failed"} == {
        "192.0.2.1": {"requests": 41},
        "192.0.2.2": {"requests": 1},
        "2001:db8::/64": {"requests": 30},
    }
    said = [record.getMessage() for record in caplog.records if record.name == logins.__name__]
    assert "41 requests with a wrong API key came from 192.0.2.1." in said
    assert not any("wrong-" in line or key in line for line in caplog.messages)


def test_many_addresses_share_one_entry(tmp_path: Path) -> None:
    async def work(store: Any) -> list[Any]:
        failures = FailedLogins(store.keys, store.audit)
        for i in range(100):
            failures.failed(f"198.51.100.{i}")
        await failures.report()
        return await store.audit.latest()

    entries = with_store(StateConfig(database=f"sqlite+aiosqlite:///{tmp_path}/careedit.db"))(work)
    assert len(entries) == logins.MAX_REPORTED + 1
    assert sum(entry.detail["requests"] for entry in entries) == 100


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
        ("testclient", "unknown"),
    ],
)
def test_an_ipv6_network_counts_as_one_address(address: str | None, network: str) -> None:
    assert network_of(address) == network
