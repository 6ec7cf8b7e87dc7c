"""Pages for people: `/` to try edits, `/status` to see how the arms do.

They are as public as the API is: each holds no data of its own and asks the same routes that any client asks, with the key
that the visitor types in. Nothing is loaded from elsewhere, and a Content-Security-Policy keeps it so.
"""

from __future__ import annotations

import functools
import secrets

from anyio.to_thread import run_sync
from fastapi import APIRouter
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

import careedit
from careedit.errors import InputError
from careedit.files import png_data_url
from careedit.samples import draw_samples
from careedit_deployments.http.auth import keys_required
from careedit_deployments.http.services import services_of

PATHS = frozenset({"/", "/status"})
"""Where the pages are; no key is needed to see them."""

SAMPLE_KINDS = ("remove", "add", "attribute", "replace", "style", "background", "reference", "relation")
"""Kinds of edit that a drawn sample is offered for."""

router = APIRouter(include_in_schema=False)


@router.get("/")
async def try_page(request: Request) -> HTMLResponse:
    """Edit pictures by hand: a drawn sample or one's own, with a mask, previews, the routing explained, turn by turn."""
    config = services_of(request).config
    panel = max((arm.panel for arm in services_of(request).backend.arms.values()), default=64)
    samples = await run_sync(_samples, min(512, max(64, panel)))
    filtered = config.scorer.backend != "none"
    return render(request, "try", samples=samples, steps=config.limits.steps, has_judge=filtered)


@router.get("/status")
async def status_page(request: Request) -> HTMLResponse:
    """How the arms do, and what was edited lately."""
    return render(request, "status")


def render(request: Request, name: str, *, looks: str | None = None, **context: object) -> HTMLResponse:
    """A page of the folder `templates`; `looks` replaces the policy for styles and pictures, by default those in the page."""
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
    looks = looks or f"style-src 'nonce-{nonce}'; img-src data: blob:"
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; {looks}; "
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
    """Edits of the drawn world's test split, which nothing was trained on: words and pictures, as data URLs."""
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
