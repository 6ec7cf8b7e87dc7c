"""From an order to its pictures: who edits (arm), routing, cost, the edit itself, and what is remembered of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from pydantic import Field

from careedit.record import Record
from careedit.records import EditRequest, RoutingDecision
from careedit_deployments.edits.backend import EditEvent
from careedit_deployments.state.records import ANONYMOUS


class EditOrder(Record):
    """What an HTTP request, a job or a session's turn wants done."""

    request: EditRequest
    """The edit."""
    model: str | None = None
    """Name of an arm or of its expert set; None: the traffic's weights decide."""
    user: str | None = None
    """Who asks, for sticky arms and limits; None: nobody is remembered."""
    partials: int = 0
    """Previews per image, 0 to 3."""
    progress: bool = False
    """Whether its steps are told; each is a message across the cluster, so only where somebody hears of them."""
    deadline_s: float | None = None
    """Seconds until the edit is given up; None: the limit."""
    request_id: str = ""
    """Id of the HTTP request or job."""
    turn: int = 0
    """Edits that were made of this picture before."""
    owner: str = ANONYMOUS
    """Id of the API key."""
    trace_headers: Mapping[str, str] = Field(default_factory=dict)
    """`traceparent` and its kin, for spans."""


class RunningEdit(Protocol):
    """An edit that was accepted: assigned to an arm, routed, within the limits."""

    @property
    def id(self) -> str:
        """Id of the edit, for feedback and logs."""
        ...

    @property
    def arm(self) -> str:
        """Who edits."""
        ...

    @property
    def decision(self) -> RoutingDecision:
        """Which experts, and why."""
        ...

    def events(self) -> AsyncIterator[EditEvent]:
        """Edit; to be iterated once. Closing the iterator stops the edit within one step."""
        ...


class Edits(Protocol):
    """The one way to an edit; routes, jobs and sessions all take it."""

    async def start(self, order: EditOrder) -> RunningEdit:
        """Accept an order or raise: `InputError` and kin, `NotFoundError`, `TooExpensiveError`, `OverloadedError`, ..."""
        ...
