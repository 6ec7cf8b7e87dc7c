"""A local OpenAI-compatible endpoint that answers by a script, most often wrongly."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from careedit.scoring.openai import EndpointAsker
from careedit.scoring.openai_http import EndpointConfig, Time
from careedit.scoring.scorer import Question

KEY = "sk-very/secret+key"
NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SQUARE = Image.new("RGB", (16, 16), (200, 30, 30))


class Handler(BaseHTTPRequestHandler):
    """Answers each request by the server's script."""

    protocol_version = "HTTP/1.1"
    server: Server
    body: dict[str, Any]

    def do_POST(self) -> None:
        self.body = body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.changed:
            number = len(self.server.bodies)
            self.server.bodies.append(body)
            self.server.keys.append(self.headers.get("authorization"))
            self.server.headers.append({name.lower() for name in self.headers})
            self.server.active += 1
            self.server.peak = max(self.server.peak, self.server.active)
            self.server.changed.notify_all()
        try:
            self.server.script[min(number, len(self.server.script) - 1)](self)
        finally:
            with self.server.changed:
                self.server.active -= 1

    def reply(self, data: object, status: int = 200, **headers: str) -> None:
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


Behaviour = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    """Answers request i by `script[i]`, later ones by the last; records what it receives."""

    def __init__(self, *script: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.headers: list[set[str]] = []
        self.active = self.peak = 0
        self.changed = threading.Condition()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that has given up closes its end


def completion(content: str = "", tokens: dict[str, float] | None = None, **choice: Any) -> dict[str, Any]:
    logprobs = None
    if tokens is not None:
        top = [{"token": token, "logprob": math.log(share)} for token, share in tokens.items()]
        logprobs = {"content": [{"token": top[0]["token"], "logprob": top[0]["logprob"], "top_logprobs": top}]}
    message = {"role": "assistant", "content": content, **choice.pop("message", {})}
    return {"choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop", **choice}]}


def says(data: object, status: int = 200, **headers: str) -> Behaviour:
    return lambda handler: handler.reply(data, status, **headers)


def fails(status: int, **headers: str) -> Behaviour:
    return says({"error": {"message": "no luck today"}}, status, **headers)


def slow(handler: Handler) -> None:
    handler.server.closing.wait(20)


def drips(handler: Handler) -> None:
    """Sends one byte at a time, fast enough for each read, without an end."""
    handler.send_response(200)
    handler.send_header("content-length", "1000000")
    handler.end_headers()
    while not handler.server.closing.wait(0.02):
        handler.wfile.write(b" ")


def truncated(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def hangs_up(handler: Handler) -> None:
    handler.close_connection = True


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("connection", "close")
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


GOOD = says(completion(tokens={"Yes": 0.6, " yes": 0.15, "No": 0.2, "no": 0.05}))
WRITTEN = says(completion('{"answer": "no", "confidence": 0.75}'))


class Clock:
    """Does not wait, and records the waits that were asked for."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    @property
    def time(self) -> Time:
        return Time(sleep=self.sleep, now=lambda: NOON)


def questions(count: int = 1) -> list[Question]:
    return [Question(images=(SQUARE,), text=f"Is number {i} right?") for i in range(count)]


def asker(server: Server, clock: Clock | None = None, **settings: Any) -> EndpointAsker:
    config = EndpointConfig(**{"base_url": server.url, "model": "judge", "answers": "logprobs", **settings})
    return EndpointAsker(config, time=(clock or Clock()).time)


def ask(server: Server, clock: Clock | None = None, **settings: Any) -> Any:
    (answer,) = asker(server, clock, **settings).ask(questions())
    return answer
