"""The router deployment of an arm: features in, decision out. It imports torch only for a router that is learned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from careedit.errors import CareEditError
from careedit.record import Record
from careedit.records import RoutingDecision
from careedit.routing import Router, RoutingFeatures, build_router
from careedit_deployments.config import Telemetry
from careedit_deployments.errors import UnavailableError
from careedit_deployments.telemetry.logs import set_up_logging

logger = logging.getLogger(__name__)


class RoutedExpert(Record):
    """What a router has to know of an expert."""

    name: str
    """Its name."""
    competence: str
    """What it is for."""
    handles: tuple[str, ...]
    """Edit kinds and conditions that it is for."""


class RouterConfig(Record):
    """An arm's router; changing it changes running replicas in place."""

    expert_set: str
    """As `load_expert_set` takes it; read only where the router has files."""
    sha256: str
    """Hash of the set, so that a changed one is noticed."""
    kind: str
    """Kind of router."""
    options: Mapping[str, Any] = {}
    """Its options as the set's file has them."""
    experts: tuple[RoutedExpert, ...] = ()
    """The set's experts, in its order."""

    @property
    def has_files(self) -> bool:
        """Whether its options name files, as a learned router's do."""
        return any(isinstance(value, Mapping) and {"file", "folder"} & set(value) for value in self.options.values())


class RouterReplica:
    """A replica of an arm's router."""

    def __init__(self, telemetry: Mapping[str, Any]) -> None:
        set_up_logging(Telemetry(**telemetry))
        self._router: Router | None = None
        self._config: RouterConfig | None = None
        self._refused: str | None = None

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Take another router. One that cannot be built is refused and the old one goes on; the first one must be good."""
        config = RouterConfig(**user_config)
        try:
            self._router, self._config = await asyncio.to_thread(_build, config), config
            self._refused = None
        except CareEditError as error:
            if self._router is None:
                raise
            self._refused = str(error)
            logger.error("The new router is refused, the old one stays: %s", error)

    async def route(self, features: RoutingFeatures, top_k: int) -> RoutingDecision:
        """The experts of an edit, and why."""
        router = self._router
        if router is None:
            raise UnavailableError("The router is not configured yet; try again.")
        return await asyncio.to_thread(router.route, features, top_k=top_k)

    async def check_health(self) -> None:
        """Ray asks this; without a router the replica is of no use."""
        if self._router is None:
            raise UnavailableError("The router is not configured yet.")

    async def status(self) -> dict[str, str | None]:
        """The set that routes now, and why the latest one was refused, if it was."""
        return {"sha256": self._config.sha256 if self._config else None, "refused": self._refused}


def _build(config: RouterConfig) -> Router:
    if not config.has_files:
        return build_router(config.kind, experts=config.experts, options=config.options)
    from careedit.experts import load_expert_set, router_options  # here: it imports torch

    loaded = load_expert_set(config.expert_set)
    options = router_options(loaded.spec, loaded.folder)
    return build_router(config.kind, experts=tuple(loaded.manifests.values()), options=options)
