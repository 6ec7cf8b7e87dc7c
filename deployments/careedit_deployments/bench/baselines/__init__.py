"""Baselines: a server with one editor that switches experts between requests, as a team would write it without careedit.

Both servers support the part of `POST /v1/images/edits` that the benchmark uses, and `GET /health`. Each runs in a process of
its own: `python -m careedit_deployments.bench.baselines NAME SETTINGS`, where SETTINGS is `BaselineSettings` as JSON.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from careedit.record import Record

NAMES = ("litserve", "fastapi")
"""Names of the available baselines."""


class BaselineSettings(Record):
    """Settings of a baseline."""

    expert_set: str
    """Expert set, in any form that `load_editor` accepts."""
    port: int = Field(ge=1024, le=65535)
    """Port on the loopback address, 1024 to 65535."""
    application: Literal["merged", "shared"] = "merged"
    """How the editor switches experts: "merged" merges the LoRA into the weights, "shared" keeps it separate."""
    device: str | None = None
    """Torch device. None: a GPU if available."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of the weights. None: the editor's default."""
    threads: PositiveInt | None = None
    """Torch's threads on a CPU. None: torch's default."""
