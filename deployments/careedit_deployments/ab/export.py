"""Export of an A/B test as JSON lines: everything that an analysis needs, and nothing that identifies a person or a picture.

The first line is a `header` (format, arms with their weights, users per arm, arm events). It is followed by `edit` lines,
oldest first, and `feedback` lines. `careedit ab report` reads it. `VERSION` is the version of this format.
"""

from __future__ import annotations

import hashlib
from typing import Any

from careedit_deployments.config import ServeConfig
from careedit_deployments.edits.assignment import assign
from careedit_deployments.state.records import ANONYMOUS, EditRecord
from careedit_deployments.state.store import Store
from careedit_deployments.state.tenant_policy import TenantPolicy

VERSION = 2
"""The version of the format. Version 2: each edit has the hash of its expert set."""
MAX_EDITS = 1_000_000
"""Maximum number of edits in an export; the newest are kept."""


async def export_lines(
    config: ServeConfig, store: Store, *, since: float = 0.0, limit: int = MAX_EDITS
) -> tuple[list[dict[str, Any]], int]:
    """The lines of the export, and the number of edits that are left out, as they may not be used for an evaluation.

    Copies by shadow arms are left out and not counted. Of more than `limit` edits, the newest are kept.
    """
    found = [edit for edit in await store.edits.latest(since=since, limit=limit) if edit.shadow_of is None]
    policies = {owner: await store.tenants.policy(owner) for owner in {edit.owner for edit in found}}
    edits = [edit for edit in reversed(found) if _is_allowed(edit, policies[edit.owner])]
    events = await store.arms.events(limit=MAX_EDITS)
    header = {
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
    kept = {edit.id for edit in edits}
    feedback = [
        {"kind": "feedback", **one.model_dump(mode="json", include={"edits", "winner", "rating", "created"})}
        for one in reversed(await store.feedback.latest(since=since, limit=MAX_EDITS))
        if kept.issuperset(one.edits)
    ]
    return [header, *(_edit(config, edit, policies[edit.owner]) for edit in edits), *feedback], len(found) - len(edits)


def _is_allowed(edit: EditRecord, policy: TenantPolicy) -> bool:
    """Whether the edit could be used when it was made, and still can. Older edits do not say it; the operator's own could."""
    then = edit.owner == ANONYMOUS if edit.purposes is None else "evaluation" in edit.purposes
    return then and "evaluation" in policy.purposes


def _edit(config: ServeConfig, edit: EditRecord, policy: TenantPolicy) -> dict[str, Any]:
    """The line of an edit. `unit`: hash of the user who was assigned. The flag is whether the assignment gave this arm.

    It is false if the user named the model, if the tenant may use some models only, or if an arm was out of traffic or weights
    have changed since. Such an edit was not assigned at random, so it says nothing about the arms.
    """
    user = edit.user or (None if edit.owner == ANONYMOUS else edit.owner)
    key = user or edit.id
    salt = config.ab_salt
    return {
        "kind": "edit",
        "id": edit.id,
        "unit": hashlib.sha256(f"{len(salt)}:{salt}{key}".encode()).hexdigest()[:32],
        "arm": edit.arm,
        "expert_set_sha256": edit.expert_set_sha256,
        "dealt": policy.models is None and edit.arm == assign(config.arms, salt, key),
        "outcome": edit.outcome,
        "seconds": edit.seconds,
        "scores": None if edit.scores is None else dict(edit.scores),
        "created": edit.created,
    }
