"""`/docs`: the API described and tried by Swagger UI. Its files come from a package and are served from here, so that the
page works without the internet and nobody else learns of a visit."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse

from careedit_deployments.http.pages import render

FILES = ("swagger-ui-bundle.js", "swagger-ui.css")
"""Swagger UI."""

PATHS = frozenset({"/docs", *(f"/docs/{name}" for name in FILES)})
"""What needs no key: it holds no data."""

_FOLDER = Path(str(files("fastapi_offline") / "static"))

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def describe(request: Request) -> HTMLResponse:
    """Every route, its fields and answers, and a form to try each."""
    # React sets styles on elements, and Swagger UI's icons are data.
    return render(request, "docs", looks="style-src 'self' 'unsafe-inline'; img-src data:")


@router.get("/docs/swagger-ui-bundle.js")
async def script() -> FileResponse:
    """Its program."""
    return _file(FILES[0])


@router.get("/docs/swagger-ui.css")
async def style() -> FileResponse:
    """Its looks."""
    return _file(FILES[1])


def _file(name: str) -> FileResponse:
    headers = {"cache-control": "max-age=86400", "x-content-type-options": "nosniff"}
    return FileResponse(_FOLDER / name, headers=headers)
