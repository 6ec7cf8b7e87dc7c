"""What became of the requests that tests send while something fails. A test counts, and `tests/conftest.py` checks and prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

REFUSALS = (400, 408, 413, 429, 503)
"""Statuses of a refusal: its sentence says what to send instead, or that the request must be sent again."""


@dataclass
class Tally:
    """How many requests were sent, and how they ended. A request whose end is not counted is lost."""

    requests: int = 0
    """Edits, jobs, turns and scores that were sent."""
    served: int = 0
    """Requests that were done."""
    refused: int = 0
    """Requests that were refused in a sentence."""
    left: int = 0
    """Requests that their client gave up: it closed the connection, or cancelled the job."""
    cut_off: int = 0
    """Requests whose connection the server broke, so that their client knows that it must send them again."""
    doubled: int = 0
    """Jobs that ended or made an image more than once."""
    mixed_up: int = 0
    """Images that are not the edit that was asked for."""

    @property
    def lost(self) -> int:
        """Requests without an answer, with an answer that is not a refusal, and jobs that failed or did not end."""
        return self.requests - self.served - self.refused - self.left - self.cut_off

    @property
    def columns(self) -> dict[str, int]:
        """Every count, by its name in words."""
        counts = asdict(self)
        wrong = {name: counts.pop(name) for name in ("doubled", "mixed_up")}
        return {name.replace("_", " "): count for name, count in {**counts, "lost": self.lost, **wrong}.items()}

    @property
    def is_clean(self) -> bool:
        """Whether no request was lost, doubled or mixed up."""
        return self.lost == self.doubled == self.mixed_up == 0

    def answered(self, status: int) -> None:
        """Count the answer to one request that was counted as sent."""
        if status < 300:
            self.served += 1
        elif status in REFUSALS:
            self.refused += 1

    def ended(self, job: Mapping[str, object]) -> None:
        """Count the end of one job that was counted as sent."""
        self.served += job["status"] == "completed"
        self.left += job["status"] == "cancelled"

    def add(self, other: Tally) -> None:
        """Add the counts of another tally."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def take(self) -> Tally:
        """The counts so far; this tally starts again at zero."""
        taken = Tally(**asdict(self))
        for one in fields(self):
            setattr(self, one.name, 0)
        return taken


TALLY = Tally()
"""The tally of the test that runs."""
