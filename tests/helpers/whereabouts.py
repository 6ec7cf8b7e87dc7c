"""Where a Ray actor lives; run inside of it, so it is in a module that its process can import."""

from __future__ import annotations

import os
from typing import Any

import ray


def whereabouts(_actor: Any) -> tuple[int, str]:
    """Process and node of an actor."""
    return os.getpid(), ray.get_runtime_context().get_node_id()
