"""Webhooks: whom they may be sent to, how they are signed, and when they are sent again."""

from __future__ import annotations

import base64
import ipaddress
import itertools

import pytest

from careedit.errors import InputError
from careedit.net import is_public
from careedit_deployments.config import JobsConfig
from careedit_deployments.jobs.webhooks import WebhookSender, check_webhook_url, key_from, sign, signing_key
from careedit_deployments.state.store import Store
from careedit_deployments.telemetry.metrics import Metrics, no_metrics
from state_records import a_job
from stores import WithStore


def test_the_signature_is_the_one_of_standard_webhooks() -> None:
    """The example of the specification and of its reference libraries."""
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_is_base64_after_its_prefix_or_its_own_bytes() -> None:
    assert signing_key("whsec_" + base64.b64encode(b"k" * 24).decode()) == b"k" * 24
    assert signing_key("a plain but long secret") == b"a plain but long secret"
    for wrong in ("whsec_!!!", "short", "whsec_c2hvcnQ="):
        with pytest.raises(InputError, match="secret"):
            signing_key(wrong)


def test_a_secret_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_from(JobsConfig()) is None
    config = JobsConfig(webhook_secret_env="HOOK_SECRET")
    with pytest.raises(InputError, match="HOOK_SECRET"):
        key_from(config)
    monkeypatch.setenv("HOOK_SECRET", "0123456789abcdef")
    assert key_from(config) == b"0123456789abcdef"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/x",
        "http://db.internal:80/x",
        "http://127.0.0.1/x",
        "http://10.1.2.3",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[fe80::1%25eth0]/",
        "http://[64:ff9b::a00:1]/",
        "http://[2002:7f00:1::]/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
    ],
)
def test_private_hosts_are_refused_unless_they_are_listed(url: str) -> None:
    with pytest.raises(InputError, match="not on the public internet"):
        check_webhook_url(url, ())
    check_webhook_url("http://localhost/x", ("localhost",))
    check_webhook_url("http://10.1.2.3", ("10.1.2.3",))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org",
        "example.org/hook",
        "https://",
        "https://me:pw@example.org",
        "https://example.org:x/",
        "https://a b/",
        "https://example.org/" + "a" * 2000,
        "http://[",
        "https://example.org/ü",
        "http://example.org:0/",
    ],
)
def test_what_is_no_address_of_a_webhook_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="webhook"):
        check_webhook_url(url, ())


@pytest.mark.parametrize(
    "url", ["https://example.org/hook", "http://93.184.216.34:8080/x?y=z", "https://[2606:4700::1111]/"]
)
def test_public_addresses_are_taken(url: str) -> None:
    check_webhook_url(url, ())


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("100.64.0.1", False),
        ("2001:4860:4860::8888", True),
        ("fd00::1", False),
        ("::", False),
        ("64:ff9b:1::a9fe:a9fe", False),
        ("::ffff:0:a00:1", False),
        ("::a00:1", False),
        ("fec0::1", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def test_a_tenant_whose_receivers_hang_leaves_senders_for_others(with_store: WithStore) -> None:
    async def work(store: Store) -> tuple[list[str], str]:
        woken: list[bool] = []
        metrics = Metrics(no_metrics)
        sender = WebhookSender(store.webhooks, None, JobsConfig(), metrics, wake=lambda: woken.append(True))
        for owner in ["a"] * 24 + ["b"] * 24 + ["c"]:
            await store.jobs.cancel((await store.jobs.add(a_job(owner=owner, webhook="https://example.org"))).id)
        claimed = []
        while (webhook := await sender.claim()) is not None:
            claimed.append(webhook)
        await sender.send(claimed[0])  # without a key it is given up
        assert woken
        (state,) = await store.webhooks.of(claimed[0].job)
        assert (state.status, state.error) == (
            "given_up",
            "The server has no key for addresses of single jobs; nothing was sent.",
        )
        await store.jobs.cancel((await store.jobs.add(a_job(owner="d", webhook="https://example.org"))).id)
        late = await sender.claim()
        assert late is not None
        await sender.close()
        return [webhook.owner for webhook in claimed], late.owner

    owners, late = with_store(work)
    assert owners == ["a"] * 4 + ["b"] * 2 + ["c"], "one place stays free for the next tenant"
    assert late == "d"


def test_pauses_grow_and_end_somewhere() -> None:
    sender = WebhookSender(None, b"", JobsConfig(), Metrics(no_metrics))  # type: ignore[arg-type]  # nothing is sent
    pauses = [sender.pause(attempt) for attempt in range(1, 12)]
    assert 3.75 <= pauses[0] <= 5
    assert all(later > earlier * 4 for earlier, later in itertools.pairwise(pauses[:5]))
    assert max(pauses) <= 12 * 3600
