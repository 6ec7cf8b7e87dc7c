"""Where webhooks may go: to public addresses, and to private ones only where the configuration lists their host.

Names are looked up when a connection is made, and the connection goes to the very address that was checked: a name that
points elsewhere a moment later (DNS rebinding) gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore2

from careedit.errors import InputError

MAX_URL = 2_000
"""Longest address, in characters."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class RefusedHostError(InputError):
    """A webhook's host is not on the public internet."""


def check_url(url: str, hosts: Collection[str]) -> None:
    """Refuse an address that no webhook may have, as far as it shows without looking a name up. Raises `InputError`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= MAX_URL
    if not host or parts.scheme not in ("http", "https") or not plain or port == 0:
        raise InputError("The webhook is no http address; give one such as https://example.org/hooks.")
    if parts.username is not None or parts.password is not None:
        raise InputError("The webhook's address holds a user name; messages are signed, so leave it out.")
    if host in hosts:
        return
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        raise _refused(host)
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return  # a name: looked up when it is sent to
    if not is_public(address):
        raise _refused(host)


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address lies on the public internet, also when IPv6 only carries an IPv4 address there."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connections to public addresses, and to the hosts of a list."""

    def __init__(self, hosts: Collection[str]) -> None:
        self._hosts = frozenset(hosts)
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of `host` if all of them may be connected to. Raises `RefusedHostError`."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} is not known ({error.strerror})") from error
        addresses = [str(entry[4][0]) for entry in found]
        if host not in self._hosts:
            for address in addresses:
                if not is_public(ipaddress.ip_address(address.partition("%")[0])):
                    raise _refused(host)
        return await self._inner.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Never."""
        raise _refused(path)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


def _refused(host: str) -> RefusedHostError:
    return RefusedHostError(
        f"The webhook's host {host!r} is not on the public internet; an operator can allow it in jobs.webhook_hosts."
    )
