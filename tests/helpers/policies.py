"""Policy checks for tests: `decided` answers as the test says and remembers what it was asked."""

from __future__ import annotations

import time
from collections.abc import Callable

from careedit_deployments.policy.contract import ALLOW, Check, PolicyInput, Verdict

ASKED: list[PolicyInput] = []
"""What `decided` was asked, in order."""
RULE: list[Callable[[PolicyInput], Verdict]] = []
"""How `decided` answers; empty: it allows everything."""


def decided() -> Check:
    """A check in a thread of its own."""

    def check(about: PolicyInput) -> Verdict:
        ASKED.append(about)
        return RULE[0](about) if RULE else ALLOW

    return check


def slow(seconds: float) -> Check:
    """A check that blocks its thread."""

    def check(about: PolicyInput) -> Verdict:
        time.sleep(seconds)
        return ALLOW

    return check


def broken() -> Check:
    """A check that fails at every call, with a text that quotes the client."""

    def check(about: PolicyInput) -> Verdict:
        raise ValueError(about.instruction)

    return check


def at_once() -> Check:
    """A check in the event loop."""

    async def check(about: PolicyInput) -> Verdict:
        return Verdict(verdict="mark", reason="Seen in the loop.")

    return check
