"""The comparisons of a server's users (`POST /v1/feedback`), from the file of `careedit ab export`, as votes."""

from __future__ import annotations

import hashlib

from careedit_eval.online import Traffic
from careedit_eval.voting.votes import Vote

TRAFFIC = "traffic"
"""The run and the benchmark of votes from traffic."""


def votes_of_traffic(traffic: Traffic) -> list[Vote]:
    """The users' comparisons of edits of two arms, one vote each. Ratings of single edits are not comparisons.

    A rater is the unit of the export, which is a hash of the user. The id of a vote follows from the edits, so the same export
    again, or a later verdict of the user, replaces the vote.
    """
    edits = {edit.id: edit for edit in traffic.edits}
    found = []
    for said in traffic.feedback:
        pair = [edits[name] for name in said.edits if name in edits]
        if len(pair) != 2 or pair[0].arm == pair[1].arm:
            continue
        left, right = pair
        about = " ".join(sorted((left.id, right.id)))
        user = min(left.unit, right.unit)
        found.append(
            Vote(
                id=hashlib.sha256(f"{TRAFFIC} {about}".encode()).hexdigest()[:32],
                run=TRAFFIC,
                rater=user[:64],
                benchmark=TRAFFIC,
                sample=about,
                seed=0,
                image=user,
                left_set=left.arm,
                right_set=right.arm,
                left_sha256="",
                right_sha256="",
                attention=None,
                offered=said.created,
                verdict="tie" if said.winner is None else "left" if said.winner == left.id else "right",
                at=said.created,
            )
        )
    return found
