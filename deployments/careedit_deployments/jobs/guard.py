"""Where webhooks may go: to public addresses, and to private ones only where the configuration lists their host.

The rule itself is `careedit.net`.
"""

from __future__ import annotations

from collections.abc import Collection

from careedit.net import Destinations


def webhook_destinations(hosts: Collection[str]) -> Destinations:
    """Public addresses, and `hosts`."""
    return Destinations(
        frozenset(host.lower() for host in hosts),
        "The webhook",
        "https://example.org/hooks",
        "an operator can allow it in jobs.webhook_hosts",
    )


def check_url(url: str, hosts: Collection[str]) -> None:
    """Refuse an address that no webhook may have, as far as it shows without looking a name up. Raises `InputError`."""
    webhook_destinations(hosts).check(url)
