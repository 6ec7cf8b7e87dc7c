"""Pages for people: `/`, the studio, to edit by hand, `/status` to see the arms, `/docs` to read and try the API with Swagger UI.

They contain no data: each calls the same routes as any client, with the key that the visitor enters. Nothing is loaded from
other servers, and a Content-Security-Policy enforces that; Swagger UI comes from a package and is served from here.
"""

from __future__ import annotations

import functools
import secrets
from importlib.resources import files
from pathlib import Path

from anyio.to_thread import run_sync
from fastapi import APIRouter
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

import careedit
from careedit.errors import InputError
from careedit.files import png_data_url
from careedit.samples import draw_samples
from careedit_deployments.http.auth import keys_required
from careedit_deployments.http.services import services_of

SWAGGER_FILES = ("swagger-ui-bundle.js", "swagger-ui.css")
"""The files of Swagger UI below `/docs`."""

_STUDIO = Path(__file__).with_name("studio")
_SERVED = StaticFiles(directory=_STUDIO)

STUDIO_FILES = frozenset(path.name for path in _STUDIO.iterdir() if path.suffix in {".css", ".js"})
"""The modules and style sheets of the pages, below `/studio`."""

PATHS = frozenset(
    {
        *("/", "/status", "/docs"),
        *(f"/docs/{name}" for name in SWAGGER_FILES),
        *(f"/studio/{name}" for name in STUDIO_FILES),
    }
)
"""Paths of the pages; they need no key, because they contain no data."""

SAMPLE_KINDS = ("remove", "add", "attribute", "replace", "style", "background", "reference", "relation")
"""Kinds of edit for which the page offers an example."""

KEYS = (
    ("Ctrl Enter", "edit"),
    ("Esc", "stop"),
    ("I", "write the instruction"),
    ("M", "open or close the mask"),
    ("B, E, X", "brush, eraser, box"),
    ("[ and ]", "smaller or larger brush"),
    ("Ctrl Z, Ctrl Shift Z", "undo, redo in the mask"),
    ("Arrows, Space, Backspace", "on the mask: move, paint, clear; Shift with an arrow paints along"),
    ("S, K, D", "compare by slider, blinking, difference"),
    ("U", "undo the last turn"),
)
"""Each key of the studio, and its use; the page shows them."""

SWAGGER = Path(str(files("fastapi_offline") / "static"))
"""The folder of `SWAGGER_FILES`."""

router = APIRouter(include_in_schema=False)


@router.get("/")
async def studio_page(request: Request) -> HTMLResponse:
    """A page to edit an example or an own image: masks, references, comparisons, and a history with branches."""
    config = services_of(request).config
    panel = max((arm.panel for arm in services_of(request).backend.arms.values()), default=64)
    samples = await run_sync(_samples, min(512, max(64, panel)))
    has_judge = config.scorer.backend != "none"
    return render(request, "studio", samples=samples, steps=config.limits.steps, has_judge=has_judge, keys=KEYS)


@router.get("/studio/{name}")
async def studio_file(name: str, request: Request) -> Response:
    """A module or style sheet of the pages. The browser asks each time whether its copy is current."""
    if name not in STUDIO_FILES:
        raise HTTPException(404)
    answer = await _SERVED.get_response(name, request.scope)
    answer.headers.update({"cache-control": "no-cache", "x-content-type-options": "nosniff"})
    return answer


@router.get("/status")
async def status_page(request: Request) -> HTMLResponse:
    """A page with the state of the arms and the latest edits."""
    return render(request, "status")


@router.get("/docs")
async def docs_page(request: Request) -> HTMLResponse:
    """Swagger UI: every route with its fields and answers, and a form to try it."""
    # React sets styles on elements, and Swagger UI's icons are data.
    return render(request, "docs", sources="style-src 'self' 'unsafe-inline'; img-src data:")


@router.get("/docs/{name}")
async def swagger_file(name: str) -> FileResponse:
    """A file of Swagger UI."""
    if name not in SWAGGER_FILES:
        raise HTTPException(404)
    headers = {"cache-control": "max-age=86400", "x-content-type-options": "nosniff"}
    return FileResponse(SWAGGER / name, headers=headers)


def render(request: Request, name: str, *, sources: str | None = None, **context: object) -> HTMLResponse:
    """A page of the folder `templates`. `sources` replaces the policy for styles and images, which allows those in the page."""
    nonce = secrets.token_urlsafe(16)
    text = (
        _templates()
        .get_template(f"{name}.html.j2")
        .render(
            **context,
            here=name,
            nonce=nonce,
            base=f"{request.scope.get('root_path', '').rstrip('/')}/",
            version=careedit.__version__,
            needs_key=keys_required(services_of(request).config),
        )
    )
    sources = sources or f"style-src 'nonce-{nonce}'; img-src data: blob:"
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; {sources}; "
        "connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
    return HTMLResponse(text, headers=headers)


@functools.cache
def _templates() -> Environment:
    loader = PackageLoader("careedit_deployments.http", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@functools.cache
def _samples(side: int) -> list[dict[str, str | None]]:
    """Example edits that no model was trained on: instructions, and images as data URLs."""
    try:
        samples = draw_samples(len(SAMPLE_KINDS), side=side, kinds=SAMPLE_KINDS, first=3)
    except InputError:  # no package with example edits is installed
        return []
    return [
        {
            "kind": sample.kind,
            "instruction": sample.request.instruction,
            "image": png_data_url(sample.request.image, optimize=True),
            "reference": png_data_url(sample.request.references[0], optimize=True)
            if sample.request.references
            else None,
        }
        for sample in samples
    ]
