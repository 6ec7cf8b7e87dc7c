"""Addresses that other parties choose: where a connection may go, and how a file is read from there.

A webhook's receiver, or the address of a picture in a service's answer, is chosen by another party. So a connection goes to
public addresses only, and to private ones if a list has their host (server-side request forgery, CWE-918). Names are
looked up when a connection is made, and the connection goes to the address that was checked: a name that points elsewhere
a moment later (DNS rebinding) gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpcore2

from careedit.errors import CareEditError, InputError

MAX_URL = 2_000
"""Maximum length of an address, in characters."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network) for network in ("64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96", "fec0::/10")
)
"""Networks that Python 3.11 counts as global: local NAT64 (RFC 8215), two old ways to carry IPv4, and site-local addresses."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class RefusedHostError(InputError):
    """A host that is not on the public internet and not on a list."""


class FetchError(CareEditError):
    """A file that could not be read from its address."""

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.again = again
        """Whether another attempt may succeed."""


@dataclass(frozen=True)
class Destinations:
    """Where connections of one purpose may go."""

    hosts: Collection[str]
    """Hosts that are allowed although they are not public, in lower case."""
    subject: str
    """What a sentence calls the address: "The webhook"."""
    example: str
    """A valid address, for the sentence about an invalid one."""
    advice: str
    """How to allow a refused host, as the end of a sentence."""

    def check(self, url: str) -> None:
        """Refuse an invalid address or host without looking up a name. Raises `InputError`."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= MAX_URL
        if not host or parts.scheme not in ("http", "https") or not plain or port == 0:
            raise InputError(f"{self.subject} is not an http address; give one such as {self.example}.")
        if parts.username is not None or parts.password is not None:
            raise InputError(f"{self.subject}'s address holds a user name; leave it out.")
        if host in self.hosts:
            return
        if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
            raise self.refused(host)
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return  # a name: looked up when a connection is made
        if not is_public(address):
            raise self.refused(host)

    def refused(self, host: str) -> RefusedHostError:
        """The error for a host that is not allowed."""
        return RefusedHostError(f"{self.subject}'s host {host!r} is not on the public internet; {self.advice}.")


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address lies on the public internet, also when IPv6 only carries an IPv4 address there."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if any(address in network for network in _NOT_PUBLIC):
            return False
    return address.is_global and not address.is_multicast


def host_of(address: str | None) -> str:
    """The host name in an address, or in a `Host` header after "//", in lower case; empty if it has none."""
    try:
        return urlsplit(address or "").hostname or ""
    except ValueError:  # a bracket that is not closed
        return ""


def names_of(host: str) -> tuple[str, ...]:
    """A host's names: each name of the loopback interface means all three."""
    return _LOOPBACK if host in _LOOPBACK else (host,)


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connections to allowed destinations only."""

    def __init__(self, allowed: Destinations) -> None:
        self._allowed = allowed
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of `host` if all of them may be connected to. Raises `RefusedHostError`.

        Looking up the name and connecting may each take `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"the address of {host} was not found in {timeout:g} s") from error
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} is not known ({error.strerror})") from error
        addresses = [str(entry[4][0]) for entry in found]
        if host.lower() not in self._allowed.hosts:
            for address in addresses:
                if not is_public(ipaddress.ip_address(address.partition("%")[0])):
                    raise self._allowed.refused(host)
        return await self._inner.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Refused, because a Unix socket is not a public address."""
        raise self._allowed.refused(path)

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds."""
        await asyncio.sleep(seconds)


def fetch(
    url: str, allowed: Destinations, *, max_bytes: int, timeout_s: float, headers: Mapping[str, str] | None = None
) -> bytes:
    """The bytes at `url`, at most `max_bytes` of them, within `timeout_s` seconds from looking up the name to the last byte.

    Raises `InputError` for an address that is not allowed, `FetchError` if the file cannot be read. May be called from any
    thread, including one with a running event loop.
    """
    allowed.check(url)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _fetch(url, allowed, max_bytes, timeout_s, dict(headers or {}))).result()


async def _fetch(
    url: str, allowed: Destinations, max_bytes: int, timeout_s: float, headers: Mapping[str, str]
) -> bytes:
    name = allowed.subject
    try:
        async with (
            asyncio.timeout(timeout_s),
            httpcore2.AsyncConnectionPool(network_backend=GuardedBackend(allowed)) as pool,
            pool.stream("GET", url, headers=list({**headers, "accept-encoding": "identity"}.items())) as answer,
        ):
            if answer.status != 200:
                note = " (a redirect, which is not followed)" if 300 <= answer.status < 400 else ""
                again = answer.status in (408, 409, 425, 429) or answer.status >= 500
                raise FetchError(f"{name} was answered with {answer.status}{note}.", again=again)
            data = bytearray()
            async for part in answer.aiter_stream():
                data += part
                if len(data) > max_bytes:
                    raise FetchError(f"{name} is larger than {max_bytes / 2**20:g} MiB, the limit.", again=False)
            return bytes(data)
    except TimeoutError:
        raise FetchError(f"{name} took longer than {timeout_s:g} s.", again=True) from None
    except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError) as error:
        reason = str(error)[:150] or type(error).__name__
        raise FetchError(f"{name} cannot be read ({reason}).", again=True) from None
