"""Headers are bounded in size, number and time, before any of our code sees a request."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator

import pytest
import uvicorn

from careedit_deployments.cluster import heads
from careedit_deployments.cluster.proxy import middlewares

START = b"GET / HTTP/1.1\r\nhost: x\r\n"


async def answer(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def ask(*parts: bytes) -> tuple[bytes, dict[str, str]]:
    """The status line and the error of the answer to a request; the parts may be refused before all are sent."""
    config = uvicorn.Config(answer, lifespan="off", log_config=None, ws="none")
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    listening = socket.create_server(("127.0.0.1", 0))
    await server.startup(sockets=[listening])
    try:
        reader, writer = await asyncio.open_connection(*listening.getsockname()[:2])
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b" 200 " in head:
            return head.split(b"\r\n")[0], {}
        assert await reader.read() == b"", "the connection is closed"
        return head.split(b"\r\n")[0], json.loads(body)["error"]
    finally:
        writer.close()
        await server.shutdown(sockets=[listening])


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Servers of this process are those of Serve's proxies."""
    known = dict(uvicorn.config.HTTP_PROTOCOLS)
    middlewares()
    yield
    uvicorn.config.HTTP_PROTOCOLS.update(known)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param((b"x-a: " + b"a" * 70_000 + b"\r\n\r\n",), id="one large header"),
        pytest.param((b"x-a: ", *(b"a" * 20_000,) * 4), id="a header without end"),
        pytest.param((*(b"x-%d: a\r\n" % i for i in range(250)), b"\r\n"), id="many headers"),
    ],
)
def test_a_head_that_is_too_large_gets_431_and_the_connection_is_closed(more: tuple[bytes, ...]) -> None:
    status, error = asyncio.run(ask(START, *more))
    assert status == b"HTTP/1.1 431 Request Header Fields Too Large"
    assert error["code"] == "request_headers_too_large"
    assert "more than 200 headers, or more than 64 KiB" in error["message"]


def test_an_address_without_end_gets_431() -> None:
    assert asyncio.run(ask(b"GET /", *(b"a" * 20_000,) * 4))[0].startswith(b"HTTP/1.1 431 ")


def test_a_head_that_does_not_arrive_gets_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "HEAD_S", 0.2)
    status, error = asyncio.run(ask(START, b"x-a: a"))
    assert status == b"HTTP/1.1 408 Request Timeout"
    assert error["code"] == "request_timeout"


def test_a_connection_that_sends_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "HEAD_S", 0.05)
    with pytest.raises(asyncio.IncompleteReadError):
        asyncio.run(ask())


def test_large_heads_within_the_limits_and_bodies_of_any_size_pass() -> None:
    many = b"".join(b"x-%d: %s\r\n" % (i, b"a" * 300) for i in range(190))
    assert asyncio.run(ask(START, many, b"\r\n"))[0] == b"HTTP/1.1 200 OK"
    body = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 500000\r\n\r\n" + b"a" * 500_000
    assert asyncio.run(ask(body, START, b"\r\n"))[0] == b"HTTP/1.1 200 OK"
