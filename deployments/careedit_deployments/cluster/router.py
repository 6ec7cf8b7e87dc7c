"""The router deployment of an arm: features in, decision out. It imports torch only for a learned router."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from careedit.errors import CareEditError
from careedit.experts import load_expert_set, router_options
from careedit.record import Record
from careedit.records import RoutingDecision
from careedit.routing import Router, RoutingFeatures, build_router
from careedit_deployments.config import Telemetry
from careedit_deployments.edits.backend import ExpertInfo
from careedit_deployments.errors import UnavailableError
from careedit_deployments.telemetry.logs import set_up_logging

logger = logging.getLogger(__name__)


class RouterConfig(Record):
    """Configuration of an arm's router; running replicas take a change in place."""

    expert_set: str
    """Name, folder or address of the set; read only if the router has files."""
    sha256: str
    """Hash of the set, so that a change of the set is a change of this configuration."""
    kind: str
    """Kind of router, as it is registered: "rules", "fixed", "transformer"."""
    options: Mapping[str, Any] = {}
    """The router's options, as in the set's file."""
    experts: tuple[ExpertInfo, ...] = ()
    """The set's experts, in its order."""

    @property
    def has_files(self) -> bool:
        """Whether the options name files, as those of a learned router do."""
        return any(isinstance(value, Mapping) and {"file", "folder"} & set(value) for value in self.options.values())


class RouterReplica:
    """A replica of an arm's router deployment."""

    def __init__(self, telemetry: Mapping[str, Any]) -> None:
        set_up_logging(Telemetry(**telemetry))
        self._router: Router | None = None
        self._config: RouterConfig | None = None
        self._refused: str | None = None

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Switch to another router. One that cannot be built is refused and the old one stays; the first must be usable."""
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
        """Called by Ray; raises if the replica has no router."""
        if self._router is None:
            raise UnavailableError("The router is not configured yet.")

    async def status(self) -> dict[str, str | None]:
        """The set that routes now, and why the latest one was refused, if it was."""
        return {"sha256": self._config.sha256 if self._config else None, "refused": self._refused}


def _build(config: RouterConfig) -> Router:
    if not config.has_files:
        return build_router(config.kind, experts=config.experts, options=config.options)
    loaded = load_expert_set(config.expert_set)
    loaded.check_is(config.sha256)
    options = router_options(loaded.spec, loaded.folder)
    return build_router(config.kind, experts=tuple(loaded.manifests.values()), options=options)
