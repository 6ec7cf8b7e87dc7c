"""The file of votes: JSON lines, one vote each, as `careedit eval votes --to` writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from careedit.errors import InputError
from careedit.record import Record
from careedit.tabular import lines_of


class ExportedVote(Record):
    """One person's vote on two edits of a sample, of the suite's first seed."""

    rater: str = Field(min_length=1)
    """The id of the person."""
    benchmark: str
    """The name of the benchmark; "traffic" for votes of a server's users."""
    sample: str
    """The id of the sample that both sets edited."""
    left: str
    """The name of the set whose edit was on the left."""
    right: str
    """The name of the set whose edit was on the right."""
    verdict: Literal["left", "right", "tie", "both_bad"]
    """The better side; "tie" and "both_bad" count as no preference."""
    at: str
    """The time of the vote, ISO 8601."""
    run: str | None = None
    """The id of the run that was voted on; None if the file does not say it."""

    @property
    def milliseconds(self) -> int:
        """The time of the vote, in milliseconds since 1970. Raises `InputError`."""
        try:
            moment = datetime.fromisoformat(self.at)
        except ValueError as error:
            raise InputError(f"The vote's time {self.at!r} is not a date; write it in ISO 8601.") from error
        return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def read_votes(path: Path, run: str) -> dict[int, ExportedVote]:
    """The votes of a file by the number of their line. Raises `InputError` for a line that is not a vote on the run with this id."""
    try:
        lines = lines_of(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The votes {str(path)!r} cannot be read ({error}); give a file that `careedit eval votes --to` wrote."
        ) from error
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            vote = ExportedVote.model_validate_json(line)
            _ = vote.milliseconds
        except (ValueError, InputError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}, line {number} is not a vote ({reason}); correct it.") from error
        if vote.run not in (None, run):
            raise InputError(
                f"{path}, line {number} is a vote on {vote.run}, not on the run {run}; write the votes of one run with "
                f"`careedit eval votes {run} --to FILE`."
            )
        found[number] = vote
    return found
