"""One vote: which of two edits of a sample a rater prefers; and what shows that a rater pays attention."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from careedit.errors import InputError
from careedit_eval.votes_file import ExportedVote

Verdict = Literal["left", "right", "tie", "both_bad"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Attention = Literal["same", "left", "right"]
"""An attention pair has one edit twice: unchanged on both sides ("same"), or unchanged on the named side and damaged on the
other."""

MAX_RATER = 64
"""The maximum length of a rater's id, in characters."""


@dataclass(frozen=True, slots=True)
class Vote:
    """A pair that a rater sees, and the rater's verdict: a row of the table of votes."""

    id: str
    """The random id of the pair, which the page knows instead of names."""
    run: str
    """The id of the run; "traffic" for votes of a server's users."""
    rater: str
    """The id of the rater, as the rater gave it."""
    benchmark: str
    """The name of the benchmark; "traffic" for votes of a server's users."""
    sample: str
    """The id of the sample, or of the two edits in traffic."""
    seed: int
    """The seed of both edits; 0 in traffic."""
    image: str
    """The source image or session of the sample, which is the cluster for intervals; in traffic the user."""
    left_set: str
    """The name of the set whose edit is on the left."""
    right_set: str
    """The name of the set whose edit is on the right."""
    left_sha256: str
    """The identity of the set on the left, as in the run; empty in traffic."""
    right_sha256: str
    """The identity of the set on the right, as in the run; empty in traffic."""
    attention: Attention | None
    """What makes it an attention pair; None for a comparison of two sets."""
    offered: float
    """The time at which the pair was first shown, in Unix seconds."""
    verdict: Verdict | None = None
    """The verdict of the rater; None until the rater has voted."""
    at: float | None = None
    """The time of the verdict in Unix seconds; None until the rater has voted."""

    @property
    def missed(self) -> bool:
        """Whether the verdict on an attention pair is wrong: a preference between equal sides, or none of the whole side."""
        if self.attention is None or self.verdict is None:
            return False
        right = ("tie", "both_bad") if self.attention == "same" else (self.attention, "both_bad")
        return self.verdict not in right

    @property
    def exported(self) -> ExportedVote:
        """The vote as the file of votes has it."""
        assert self.verdict is not None and self.at is not None, "a pair without a verdict is not a vote"
        return ExportedVote(
            rater=self.rater,
            benchmark=self.benchmark,
            sample=self.sample,
            left=self.left_set,
            right=self.right_set,
            verdict=self.verdict,
            at=datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds"),
            run=self.run,
        )


def rater_of(text: object) -> str:
    """A rater's id without spaces around it. Raises `InputError`."""
    name = text.strip() if isinstance(text, str) else ""
    if not name or len(name) > MAX_RATER or not name.isprintable():
        raise InputError(f"A rater's id has 1 to {MAX_RATER} printable characters; choose another.")
    return name


def verdict_of(text: object) -> Verdict:
    """A verdict. Raises `InputError`."""
    if text not in VERDICTS:
        raise InputError(f"{str(text)[:40]!r} is not a verdict; send one of {', '.join(VERDICTS)}.")
    return text
