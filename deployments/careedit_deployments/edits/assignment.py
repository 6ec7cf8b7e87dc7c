"""Which arm answers: sticky per user, by a salted hash, and stable when weights change.

Weighted rendezvous hashing: every arm draws a number for the user, and the highest wins. A user therefore leaves an arm only
when that arm itself loses weight or is cut, and only as many leave as must; the others never move.
(Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998; the weights as in Schindelhauer and
Schomaker, "Weighted distributed hash tables", 2005: arm i wins with probability w_i / sum(w) for the scores -w_i / ln(u_i).)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping

from careedit_deployments.config import Arm
from careedit_deployments.errors import NotFoundError


def assign(arms: Mapping[str, Arm], salt: str, user_key: str, cut: Collection[str] = frozenset()) -> str:
    """The arm of this user: the same one every time, in every process.

    `user_key` says who asks; give the id of the request for a caller who is nobody, so that each request is drawn anew.
    Arms that are shadows, weigh nothing or are in `cut` get nobody; where that leaves none, the cut is ignored, because
    an edit by a doubtful arm is better than no edit.
    """
    taking = {name: arm.weight for name, arm in arms.items() if not arm.shadow and arm.weight > 0}
    live = {name: weight for name, weight in taking.items() if name not in cut} or taking
    if not live:
        raise NotFoundError("No arm takes traffic; name one as `model`.")
    return max(sorted(live), key=lambda name: -live[name] / math.log(_uniform(salt, user_key, name)))


def choose_arm(
    arms: Mapping[str, Arm],
    expert_sets: Mapping[str, str],
    model: str | None,
    salt: str,
    user_key: str,
    cut: Collection[str] = frozenset(),
) -> str:
    """The arm that answers a request for `model`: an arm's name, the name of an expert set, or None for the traffic's split.

    `expert_sets` holds the name of each arm's set. An arm that is named is taken as it is, cut or not; for a set that
    several arms serve, `assign` decides among them. Raises `NotFoundError` for any other name, and for a shadow arm.
    """
    if model is None:
        return assign(arms, salt, user_key, cut)
    open_to_all = {name: arm for name, arm in arms.items() if not arm.shadow}
    if model in open_to_all:
        return model
    same = {name: arm for name, arm in open_to_all.items() if expert_sets.get(name) == model}
    if not same:
        known = ", ".join(sorted({*open_to_all, *(expert_sets[name] for name in open_to_all if name in expert_sets)}))
        raise NotFoundError(f"There is no model {model!r}; give one of {known}, or leave `model` out.", field="model")
    weighed = {name: arm for name, arm in same.items() if arm.weight > 0}
    return assign(weighed, salt, user_key, cut) if weighed else min(same)


def shadows_of(arms: Mapping[str, Arm], salt: str, request_id: str) -> tuple[str, ...]:
    """The shadow arms that get a copy of this request: each one its share of all requests."""
    return tuple(
        name
        for name, arm in sorted(arms.items())
        if arm.shadow and _uniform(f"{salt} shadow", request_id, name) <= arm.shadow_share
    )


def _uniform(salt: str, key: str, arm: str) -> float:
    """A number in (0, 1), the same for the same three texts: 53 bits of their hash, as many as a float holds."""
    # Lengths in front, so that no two different triples are the same bytes.
    text = "".join(f"{len(part)}:{part}" for part in (salt, key, arm))
    bits = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11
    return (bits + 0.5) / 2**53
