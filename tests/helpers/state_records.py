"""Database records with defaults for tests, and a clock that the test sets."""

from __future__ import annotations

from typing import Any

from careedit_deployments.state.records import EditRecord, JobEvent, JobRecord, SessionRecord, TurnRecord, new_id

NOON = 1_800_000_000.0


class Clock:
    """A clock that stands still until a test changes `now`."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def a_job(**changed: Any) -> JobRecord:
    order = {"request": {"n": 1, "instruction": "remove it"}, "image": "x", "output": {"size": (1, 1)}}
    fields = {"id": new_id("job"), "body_sha256": "a" * 64, "order": order, "created": NOON}
    return JobRecord(**{**fields, **changed})


def an_edit(**changed: Any) -> EditRecord:
    fields = {"id": new_id("edit"), "arm": "a", "outcome": "made", "seconds": 1.0, "created": NOON}
    return EditRecord(**{**fields, **changed})


def a_session(**changed: Any) -> SessionRecord:
    fields = {"id": new_id("session"), "source": "x", "created": NOON, "expires": NOON + 100}
    return SessionRecord(**{**fields, **changed})


def a_turn(session: str, **changed: Any) -> TurnRecord:
    fields = {
        "id": new_id("turn"),
        "session": session,
        "number": 0,
        "depth": 1,
        "instruction": "remove it",
        "edit_id": "edit_1",
        "arm": "a",
        "picture": "x",
        "trace": {},
        "created": NOON,
    }
    return TurnRecord(**{**fields, **changed})


def progress(job: JobRecord, done: int = 1) -> JobEvent:
    data = {"image": 0, "done": done, "total": 4}
    return JobEvent(job=job.id, number=0, kind="progress", data=data, created=NOON)
