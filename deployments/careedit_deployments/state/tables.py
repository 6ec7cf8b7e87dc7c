"""The protocols of what changes while it lives: jobs, webhooks, sessions. `base` has the rest, and exports these too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Literal, Protocol

from careedit_deployments.state.records import (
    JobEnd,
    JobEvent,
    JobImage,
    JobRecord,
    SessionRecord,
    TurnRecord,
    WebhookRecord,
)

Topic = Literal["queued", "told", "cancel", "webhook"]
"""Changes of jobs that one can listen to: one was queued, an event was written, an end was asked for, a webhook is due."""


class JobTable(Protocol):
    """Jobs, claimed by lease: what a worker writes counts only while its claim (`worker`, `attempt`) stands."""

    async def add(self, job: JobRecord, *, most: int | None = None) -> JobRecord:
        """Queue a job, or return the one that has this owner's idempotency key; `ConflictError` if its body differs.

        Raises `OverloadedError` for a new one where `most` wait already; in PostgreSQL, some that come at once may pass.
        """
        ...

    async def keyed(self, owner: str, key: str) -> JobRecord | None:
        """The job that has this owner's idempotency key."""
        ...

    async def get(self, job_id: str, *, owner: str | None = None) -> JobRecord:
        """One job."""
        ...

    async def page(self, owner: str, *, before: str | None = None, limit: int = 20) -> list[JobRecord]:
        """An owner's jobs, newest first, those older than the job `before`."""
        ...

    async def ahead(self, job: JobRecord) -> int:
        """Queued jobs that come before this one."""
        ...

    async def waiting(self) -> int:
        """Queued jobs, of every owner."""
        ...

    async def claim(self, worker: str, *, lease_s: float, attempts: int) -> JobRecord | None:
        """Take the oldest job that is queued or whose worker is silent; None: there is none.

        A silent worker's job that was begun `attempts` times fails instead, with that reason.
        """
        ...

    async def beat(self, job: JobRecord, *, lease_s: float) -> bool | None:
        """Renew the lease; whether the job is to stop, None: the claim is lost."""
        ...

    async def append(self, job: JobRecord, event: JobEvent, *, image: JobImage | None = None) -> bool | None:
        """Write an event (its number is given here) and an image that was made; returns as `beat` does."""
        ...

    async def finish(
        self, job: JobRecord, status: JobEnd, *, error: Mapping[str, str] | None = None
    ) -> JobRecord | None:
        """End a claimed job: status, last event and webhook in one transaction. None: the claim is lost."""
        ...

    async def release(self, job: JobRecord) -> bool:
        """Put a claimed job back into the queue, the attempt not counted: its worker shuts down."""
        ...

    async def cancel(self, job_id: str, *, owner: str | None = None) -> JobRecord:
        """Ask for a job's end: a queued one is cancelled at once, a running one by its worker."""
        ...

    async def events(self, job_id: str, *, after: int = 0) -> list[JobEvent]:
        """A job's events with numbers above `after`, in order."""
        ...

    async def delete(self, job_id: str) -> None:
        """Remove a job, its events and its webhooks; nothing if it is gone."""
        ...

    async def expired(self) -> list[str]:
        """Ids of jobs whose time has come."""
        ...

    async def known(self, ids: Collection[str]) -> frozenset[str]:
        """Which of these ids are jobs."""
        ...

    def listen(self, to: Topic) -> asyncio.Event:
        """Set at the next change of that kind that this process makes; take it before you look, then wait for it.

        Other processes' changes do not ring: wait with a time limit, and look again.
        """
        ...

    def watch(self, watcher: Callable[[JobRecord], None]) -> None:
        """Tell `watcher` of each job that this process queues, begins or ends, once that is committed: its `status` says
        which. It must neither block nor raise."""
        ...


class WebhookTable(Protocol):
    """Webhooks that are due, claimed by lease."""

    async def claim(self, *, lease_s: float) -> WebhookRecord | None:
        """Take one that is due; nobody else gets it within `lease_s` seconds. Its `attempt` counts this one."""
        ...

    async def settle(
        self, webhook: WebhookRecord, *, error: str | None = None, retry_in_s: float | None = None
    ) -> None:
        """Say how an attempt ended: no `error` means delivered, no `retry_in_s` with an error means given up."""
        ...

    async def of(self, job_id: str) -> list[WebhookRecord]:
        """A job's webhooks."""
        ...


class SessionTable(Protocol):
    """Sessions and their turns."""

    async def add(self, session: SessionRecord) -> None:
        """Keep a session."""
        ...

    async def get(self, session_id: str, *, owner: str | None = None) -> SessionRecord:
        """One session that has not expired."""
        ...

    async def page(self, owner: str, *, before: str | None = None, limit: int = 20) -> list[SessionRecord]:
        """An owner's sessions, newest first."""
        ...

    async def add_turn(self, turn: TurnRecord, *, expires: float) -> TurnRecord:
        """Keep a turn (its number is given here), make it the head and put the session's end off."""
        ...

    async def turn(self, session_id: str, turn_id: str) -> TurnRecord:
        """One turn."""
        ...

    async def turns(self, session_id: str) -> list[TurnRecord]:
        """Every turn, in the order in which they were made."""
        ...

    async def move_head(self, session_id: str, *, seen: str | None, to: str | None) -> bool:
        """Point the session at another turn, if it still points at `seen`."""
        ...

    async def delete(self, session_id: str) -> bool:
        """Remove a session and its turns; False: it is gone already."""
        ...

    async def expired(self) -> list[str]:
        """Ids of sessions whose time has come."""
        ...

    async def known(self, ids: Collection[str]) -> frozenset[str]:
        """Which of these ids are sessions."""
        ...
