"""The fleet: which deployments an application has, what they are called, and which of them makes an edit."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import PositiveInt

from careedit.errors import InputError
from careedit.record import Record
from careedit.records import RoutingDecision
from careedit.routing import BASE
from careedit_deployments.edits.backend import ArmInfo

INGRESS = "ingress"
"""Name of the deployment that speaks HTTP."""
SCORER = "scorer"
"""Name of the scorer pool."""


def router_name(arm: str) -> str:
    """Name of an arm's router deployment."""
    return f"router-{arm}"


def expert_name(arm: str, expert: str | None) -> str:
    """Name of the deployment of an arm's expert, or of its shared pool (None)."""
    return f"shared-{arm}" if expert is None else f"expert-{arm}-{expert}"


class ArmFleet(Record):
    """An arm's deployments."""

    info: ArmInfo
    """What the HTTP layer tells of it."""
    needs_pixels: bool
    """Whether its router looks at pictures."""
    own: tuple[str, ...]
    """Experts with a deployment of their own."""
    shared: bool
    """Whether there is a shared pool."""
    room: Mapping[str, PositiveInt]
    """By editing deployment: edits that one caller may have in hand, those that all its replicas hold and those that wait."""


class Fleet(Record):
    """Every deployment that an ingress calls; plain data, so that a running ingress can be given another one."""

    arms: Mapping[str, ArmFleet]
    """By arm name."""
    scorer: bool = False
    """Whether there is a scorer pool."""

    def deployment_for(self, arm: str, decision: RoutingDecision) -> str:
        """Name of the deployment that makes an edit: a single expert's own where it has one, else the shared pool.

        Raises `InputError` for an arm, expert or mixture that nothing here can make.
        """
        fleet = self.arm(arm)
        names = tuple(decision.weights)
        if len(names) == 1 and names[0] in fleet.own:
            return expert_name(arm, names[0])
        for name in names:
            if name != BASE and name not in fleet.info.experts:
                known = ", ".join((*fleet.info.experts, BASE))
                raise InputError(f"There is no expert {name!r} in {arm!r}; the known ones are {known}.", field="expert")
        if not fleet.shared:
            raise InputError(
                f"The arm {arm!r} has no shared pool, which edits with the base or with several experts; name one of "
                f"{', '.join(fleet.own)}.",
                field="expert",
            )
        return expert_name(arm, None)

    def arm(self, name: str) -> ArmFleet:
        """An arm; raises `InputError` where there is none of this name."""
        if name not in self.arms:
            raise InputError(f"There is no arm {name!r}; the arms are {', '.join(self.arms)}.", field="model")
        return self.arms[name]

    @property
    def needed(self) -> Mapping[str, str]:
        """Deployments without which edits fail: name -> what it is, for a person."""
        parts: dict[str, str] = {}
        for name, arm in self.arms.items():
            if arm.info.shadow:
                continue
            parts[router_name(name)] = f"the router of {name}"
            parts.update({expert_name(name, expert): f"the expert {expert} of {name}" for expert in arm.own})
            if arm.shared:
                parts[expert_name(name, None)] = f"the shared pool of {name}"
        return parts
