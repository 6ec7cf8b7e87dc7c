"""Clients that hold a server's resources: open streams, and requests whose body is incomplete."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

BOUNDARY = "careedit-test"


@contextmanager
def held(url: str, heads: list[bytes]) -> Iterator[list[socket.socket]]:
    """One open connection per entry of `heads`, on which only that entry is sent."""
    address = urlsplit(url)
    with ExitStack() as stack:
        sockets = []
        for head in heads:
            one = stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=30))
            one.sendall(head)
            sockets.append(one)
        yield sockets


def follows(path: str, key: str = "none") -> bytes:
    """A request for the events of a job."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n".encode()


def half_a_body(path: str, key: str = "none", *, kind: str = f"multipart/form-data; boundary={BOUNDARY}") -> bytes:
    """A request with only the first bytes of its body."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: 100000\r\n\r\n--{BOUNDARY}\r\n".encode()


def status(connection: socket.socket) -> int:
    """Waits for an answer and returns its status."""
    head = b""
    while b"\r\n" not in head:
        data = connection.recv(4096)
        if not data:
            raise ConnectionError("The server closed the connection without an answer.")
        head += data
    return int(head.split(b" ", 2)[1])


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    found = b""
    while data := connection.recv(65536):
        found += data
    return found
