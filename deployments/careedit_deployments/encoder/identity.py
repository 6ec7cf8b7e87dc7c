"""Which base an encoder replica has: expert replicas name it in every call."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it imports torch
    from careedit.experts import ExpertSet


def base_key(expert_set: ExpertSet) -> str:
    """A hash of the base and of its prompts' maximum length. Sets with the same key can share text encoders."""
    base = expert_set.spec.base
    inside = f"{expert_set.folder.address}/{base.path}"
    place = base.sha256 or (base.path if base.is_hub_id or "://" in base.path or base.path.startswith("/") else inside)
    named = [base.fingerprint, place, base.revision, base.max_sequence_length]
    return hashlib.sha256(json.dumps(named).encode("utf-8")).hexdigest()
