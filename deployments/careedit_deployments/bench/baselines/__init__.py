"""What a team would write without the platform: one editor behind a server, its adapter switched for each request.

Both servers speak as much of `POST /v1/images/edits` as the benchmark sends, and `GET /health`. Each runs in a process of
its own: `python -m careedit_deployments.bench.baselines NAME SETTINGS`, SETTINGS being `BaselineSettings` as JSON.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from careedit.record import Record

NAMES = ("litserve", "fastapi")
"""The baselines."""


class BaselineSettings(Record):
    """A server with one editor."""

    expert_set: str
    """As `load_editor` takes it."""
    port: int = Field(ge=1024, le=65535)
    """Port on the loopback address."""
    application: Literal["merged", "shared"] = "merged"
    """How the editor changes experts between two requests: merged anew, or another adapter beside the base."""
    device: str | None = None
    """Device; None: a GPU where there is one."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format; None: the editor's default."""
    threads: PositiveInt | None = None
    """Torch's threads on a CPU; None: torch's choice."""
