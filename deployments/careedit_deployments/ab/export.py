"""What the arms did, as JSON lines: all that an analysis needs, nothing that leads to a person or a picture.

The first line is a `header` (format, arms with their weights, users per arm, cuts), then come `edit` lines, oldest first, then
`feedback` lines. `careedit ab report` reads it. `VERSION` is the version of this format.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.assignment import assign
from careedit_deployments.state.records import ANONYMOUS, EditRecord
from careedit_deployments.state.store import Store

VERSION = 1
MOST = 1_000_000
"""Edits of an export, the newest."""


async def export_lines(
    config: ServeConfig, store: Store, *, since: float = 0.0, limit: int = MOST
) -> AsyncIterator[dict[str, Any]]:
    """The lines. Shadows' copies are left out: nobody was served by them. Of more than `limit` edits the newest are kept."""
    edits = [edit for edit in await store.edits.latest(since=since, limit=limit) if edit.shadow_of is None]
    events = await store.arms.events(limit=MOST)
    yield {
        "kind": "header",
        "version": VERSION,
        "since": since,
        "arms": {
            name: {"expert_set": arm.expert_set, "weight": arm.weight}
            for name, arm in config.arms.items()
            if not arm.shadow
        },
        "assigned": dict(await store.arms.assigned(config.ab_salt)),
        "events": [{"arm": one.arm, "what": one.kind, "created": one.created} for one in reversed(events)],
    }
    for edit in reversed(edits):
        yield _edit(config, edit)
    kept = {edit.id for edit in edits}
    for one in reversed(await store.feedback.latest(since=since, limit=MOST)):
        if kept.issuperset(one.edits):
            said = one.model_dump(mode="json", include={"edits", "winner", "rating", "created"})
            yield {"kind": "feedback", **said}


def _edit(config: ServeConfig, edit: EditRecord) -> dict[str, Any]:
    """`unit` is whom the arm was dealt to, hashed; `dealt` whether the deal gave them this arm.

    It did not where they named the model, or where an arm was cut out or weights changed since: chosen by something else
    than chance, such an edit says nothing of the arms.
    """
    user = edit.user or (None if edit.owner == ANONYMOUS else edit.owner)
    key = user or edit.id
    salt = config.ab_salt
    return {
        "kind": "edit",
        "id": edit.id,
        "unit": hashlib.sha256(f"{len(salt)}:{salt}{key}".encode()).hexdigest()[:32],
        "arm": edit.arm,
        "dealt": edit.arm == assign(config.arms, salt, key),
        "outcome": edit.outcome,
        "seconds": edit.seconds,
        "scores": None if edit.scores is None else dict(edit.scores),
        "created": edit.created,
    }
