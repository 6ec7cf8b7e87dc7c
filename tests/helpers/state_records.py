"""Valid records for tests of the store, a clock that tests set, and lists of cases that several stores share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from careedit_deployments.state.records import EditRecord, JobEvent, JobRecord, SessionRecord, TurnRecord, new_id

NOON = 1_800_000_000.0
Case = Callable[..., Awaitable[None]]


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


def collect_cases() -> tuple[list[Case], Callable[[Case], Case]]:
    """A list for `pytest.mark.parametrize`, and a decorator that adds a function to it."""
    cases: list[Case] = []

    def case(function: Case) -> Case:
        cases.append(function)
        return function

    return cases, case
