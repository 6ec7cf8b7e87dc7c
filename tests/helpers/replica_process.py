"""Functions that run inside a Ray actor, in a module that the actor's process can import."""

from __future__ import annotations

import os
from typing import Any

import ray


def process_and_node(_actor: Any) -> tuple[int, str]:
    """Process id and node id of an actor."""
    return os.getpid(), ray.get_runtime_context().get_node_id()


def status(actor: Any) -> dict[str, Any]:
    """An expert replica's status. A call through Serve would wait until one of its edits is done."""
    replica = actor._replica_impl._user_callable_wrapper.user_callable
    try:
        replica.status().send(None)
    except StopIteration as ended:
        return dict(ended.value)
    raise AssertionError("status awaits something now")
