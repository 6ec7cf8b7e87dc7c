"""Plain FastAPI: the editor under a lock, in a worker thread, so that the event loop goes on receiving requests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from anyio.to_thread import run_sync
from fastapi import FastAPI
from starlette.requests import Request

from careedit.records import EditRequest, EditResult
from careedit_deployments.bench.baselines import BaselineSettings
from careedit_deployments.bench.baselines.wire import ROUTE, answer_of, load, request_of


def make_app(edit: Callable[[EditRequest], EditResult]) -> FastAPI:
    """The application; `edit` is called by one thread at a time."""
    app, turn = FastAPI(), threading.Lock()

    def answer(request: EditRequest) -> dict[str, Any]:
        with turn:
            result = edit(request)
        return answer_of(result)

    @app.post(ROUTE)
    async def edits(request: Request) -> dict[str, Any]:
        async with request.form() as form:
            wanted = await run_sync(request_of, form)
        return await run_sync(answer, wanted)

    @app.get("/health")
    async def health() -> str:
        return "ok"

    return app


def run(settings: BaselineSettings) -> None:
    """Serve until the process is told to end."""
    editor = load(settings)
    uvicorn.run(make_app(editor.edit), host="127.0.0.1", port=settings.port, log_level="warning")
