"""The fleet: the deployments of an application, their names, and the one that makes a given edit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from careedit.errors import InputError
from careedit.record import Record
from careedit.records import BASE, RoutingDecision, unknown_expert
from careedit_deployments.config import Arm
from careedit_deployments.edits.backend import ArmInfo, ExpertInfo

if TYPE_CHECKING:  # it imports torch
    from careedit.experts import ExpertSet

INGRESS = "ingress"
"""Name of the deployment that serves HTTP."""
SCORER = "scorer"
"""Name of the scorer pool."""


def encoder_name(arm: str) -> str:
    """Name of the deployment with the text encoders of an arm's base; `arm` is the first one with that base."""
    return f"encoder-{arm}"


def router_name(arm: str) -> str:
    """Name of an arm's router deployment."""
    return f"router-{arm}"


def expert_name(arm: str, expert: str | None) -> str:
    """Name of the deployment of an arm's expert, or of its shared pool (None)."""
    return f"shared-{arm}" if expert is None else f"expert-{arm}-{expert}"


class ArmFleet(Record):
    """The deployments of one arm."""

    info: ArmInfo
    """The arm, as the HTTP layer knows it."""
    needs_pixels: bool
    """Whether the arm's router reads pixels; if not, none are sent to it."""
    own: tuple[str, ...]
    """Experts with a deployment of their own."""
    shared: bool
    """Whether the arm has a shared pool, which edits with the base, mixtures and long-tail experts."""
    encoder: str | None = None
    """Name of the deployment that encodes the arm's prompts; None: its expert replicas do."""
    max_in_flight: Mapping[str, PositiveInt]
    """Edits in flight per ingress replica, by editing deployment: all that its replicas may run and queue at most."""


def describe_arm(name: str, arm: Arm, expert_set: ExpertSet) -> ArmInfo:
    """An arm, as the ingress knows it."""
    # Imported here: it needs torch, and `careedit serve` reads a name of this module before it starts anything.
    from careedit.experts.licence import base_licence

    spec = expert_set.spec
    return ArmInfo(
        name=name,
        expert_set=expert_set.name,
        version=expert_set.version,
        sha256=expert_set.sha256,
        experts={
            one.name: ExpertInfo(
                name=one.name,
                competence=one.competence,
                handles=one.handles,
                description=one.description,
                deployment="shared" if one.name in arm.tail_of(expert_set.names) else "own",
                state="ready",
                licence=one.licence,
            )
            for one in expert_set.manifests.values()
        },
        steps=spec.defaults.steps,
        guidance=spec.defaults.guidance,
        top_k=spec.defaults.top_k,
        panel=spec.panel.size,
        takes_guidance=expert_set.takes_guidance,
        references=expert_set.references,
        base=expert_set.base_name,
        base_licence=base_licence(expert_set).licence,
        shadow=arm.shadow,
    )


class Fleet(Record):
    """Every deployment that an ingress calls; plain data, so that a running ingress can switch to another fleet."""

    arms: Mapping[str, ArmFleet]
    """The deployments of each arm, by its name."""
    scorer: bool = False
    """Whether the application has a scorer pool."""

    def deployment_for(self, arm: str, decision: RoutingDecision) -> str:
        """Name of the deployment that makes an edit: a single expert's own where it has one, else the shared pool.

        Raises `InputError` for an arm, expert or mixture that no deployment serves.
        """
        fleet = self.arm(arm)
        names = tuple(decision.weights)
        if len(names) == 1 and names[0] in fleet.own:
            return expert_name(arm, names[0])
        for name in names:
            if name != BASE and name not in fleet.info.experts:
                raise unknown_expert(name, fleet.info.experts)
        if not fleet.shared:
            raise InputError(
                f"The arm {arm!r} has no shared pool, which edits with the base or with several experts; name one of "
                f"{', '.join(fleet.own)}.",
                field="expert",
            )
        return expert_name(arm, None)

    def arm(self, name: str) -> ArmFleet:
        """The arm called `name`; raises `InputError` if it does not exist."""
        if name not in self.arms:
            raise InputError(f"The arm {name!r} does not exist; the arms are {', '.join(self.arms)}.", field="model")
        return self.arms[name]

    @property
    def needed(self) -> Mapping[str, str]:
        """Deployments without which edits fail: name to a description for people."""
        parts: dict[str, str] = {}
        for name, arm in self.arms.items():
            if arm.info.shadow:
                continue
            parts[router_name(name)] = f"the router of {name}"
            if arm.encoder is not None:
                parts[arm.encoder] = (
                    f"{parts[arm.encoder]}, {name}" if arm.encoder in parts else f"the encoder of {name}"
                )
            parts.update({expert_name(name, expert): f"the expert {expert} of {name}" for expert in arm.own})
            if arm.shared:
                parts[expert_name(name, None)] = f"the shared pool of {name}"
        return parts
