"""Assigns users to arms by a salted hash: the same user gets the same arm, and few users move when weights change.

Weighted rendezvous hashing: every arm draws a number for the user, and the highest wins. A user therefore leaves an arm only
if that arm loses weight or is disabled; the other users stay.
(Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998; the weights as in Schindelhauer and
Schomaker, "Weighted distributed hash tables", 2005: arm i wins with probability w_i / sum(w) for the scores -w_i / ln(u_i).)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping

from careedit_deployments.config import Arm
from careedit_deployments.errors import NotFoundError


def assign(arms: Mapping[str, Arm], salt: str, user_key: str, disabled: Collection[str] = frozenset()) -> str:
    """The arm of a user: the same at every call, in every process.

    `user_key` identifies the user; for an anonymous caller give the id of the request, so that each request is assigned by
    itself. Arms that are shadows, have no weight or are in `disabled` get no users. If no arm is left, `disabled` is ignored,
    because an edit by a doubtful arm is better than no edit.
    """
    taking = {name: arm.weight for name, arm in arms.items() if not arm.shadow and arm.weight > 0}
    live = {name: weight for name, weight in taking.items() if name not in disabled} or taking
    if not live:
        raise NotFoundError("No arm takes traffic; name one as `model`.")
    return max(sorted(live), key=lambda name: -live[name] / math.log(_uniform(salt, user_key, name)))


def choose_arm(
    arms: Mapping[str, Arm],
    expert_sets: Mapping[str, str],
    model: str | None,
    salt: str,
    user_key: str,
    disabled: Collection[str] = frozenset(),
) -> str:
    """The arm for a request with `model`: the name of an arm or of an expert set, or None for the traffic weights.

    `expert_sets` has the name of each arm's set. A named arm is used even if it is disabled; for a set that several arms
    serve, `assign` decides among them. Raises `NotFoundError` for any other name, and for a shadow arm.
    """
    if model is None:
        return assign(arms, salt, user_key, disabled)
    public = {name: arm for name, arm in arms.items() if not arm.shadow}
    if model in public:
        return model
    same = {name: arm for name, arm in public.items() if expert_sets.get(name) == model}
    if not same:
        known = ", ".join(sorted({*public, *(expert_sets[name] for name in public if name in expert_sets)}))
        raise NotFoundError(
            f"The model {model!r} does not exist; give one of {known}, or leave `model` out.", field="model"
        )
    weighted = {name: arm for name, arm in same.items() if arm.weight > 0}
    return assign(weighted, salt, user_key, disabled) if weighted else min(same)


def shadows_of(arms: Mapping[str, Arm], salt: str, request_id: str) -> tuple[str, ...]:
    """The shadow arms that get a copy of this request; each gets its share of all requests."""
    return tuple(
        name
        for name, arm in sorted(arms.items())
        if arm.shadow and _uniform(f"{salt} shadow", request_id, name) <= arm.shadow_share
    )


def _uniform(salt: str, key: str, arm: str) -> float:
    """A number in (0, 1), the same for the same three texts: 53 bits of their hash, the precision of a float."""
    # With the lengths, different triples never give the same bytes.
    text = "".join(f"{len(part)}:{part}" for part in (salt, key, arm))
    bits = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11
    return (bits + 0.5) / 2**53
