"""What votes say: strengths with intervals, every two sets against each other, and the attention of raters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from careedit.errors import InputError
from careedit_eval.compare import Preference, preference_from
from careedit_eval.stats import Game, Interval, Strength, davidson_strengths, tiers_of
from careedit_eval.voting.votes import Vote

MISSED = 2
"""A rater who missed fewer attention pairs than this is not excluded."""
MISSED_SHARE = 0.25
"""A rater who missed more than this share of the attention pairs, and `MISSED` or more, is excluded."""
RULE = f"raters who missed {MISSED} or more attention pairs, and more than {MISSED_SHARE:.0%} of theirs, are excluded"


@dataclass(frozen=True, slots=True)
class RaterVotes:
    """The votes of one rater."""

    rater: str
    """The id of the rater."""
    votes: int
    """The number of votes on two sets."""
    left: int
    """The number of votes for the left side; about as many as for the right, because sides are random."""
    right: int
    """The number of votes for the right side."""
    ties: int
    """The number of votes for "equally good"."""
    both_bad: int
    """The number of votes for "both bad"."""
    attention: int
    """The number of attention pairs that the rater voted on."""
    missed: int
    """The number of attention pairs with a wrong verdict."""

    @property
    def excluded(self) -> bool:
        """Whether the rater's votes are left out of the analysis."""
        return self.missed >= MISSED and self.missed > MISSED_SHARE * self.attention


@dataclass(frozen=True, slots=True)
class SetVotes:
    """The votes on one set."""

    name: str
    """The name of the set."""
    votes: int
    """The number of votes on the set."""
    won: int
    """The number of votes that prefer the set."""
    lost: int
    """The number of votes that prefer the other set."""
    both_bad: int
    """The number of votes that both edits are bad; they count as ties."""
    group: int
    """The number of the group of sets that votes connect, from 1. Sets of two groups cannot be compared."""
    tier: int
    """The tier of the set in its group, from 1, the best. The votes of higher tiers against lower ones are all wins."""
    strength: float | None
    """The log-strength relative to the anchor of its tier, which has 0; None for a set that is alone in its tier."""
    interval: Interval | None
    """The 95 % interval of the strength, over source images; None for the anchor, or with too few images."""


@dataclass(frozen=True, slots=True)
class VoteReport:
    """The whole analysis of some votes."""

    votes: int
    """The number of votes that count."""
    left_out: int
    """The number of votes of excluded raters, which stay in the table."""
    images: int
    """The number of source images, or users in traffic, among the votes that count."""
    sets: tuple[SetVotes, ...]
    """Every set, by group, tier and strength."""
    pairs: tuple[Preference, ...]
    """Every two sets that votes compare; A is the one with the higher place in `sets`."""
    raters: tuple[RaterVotes, ...]
    """Every rater who voted, by id."""
    notes: tuple[str, ...]
    """Warnings about the figures, as sentences."""


def analyse_votes(votes: Sequence[Vote], against: str | None = None) -> VoteReport:
    """The analysis of votes; strengths are relative to `against`, by default the set with the most votes.

    Verdicts "both_bad" count as ties. Raters with too many missed attention pairs are left out (`RULE`). Raises `InputError` if
    no vote counts, or if no vote names `against`.
    """
    raters = raters_of(votes)
    excluded = {one.rater for one in raters if one.excluded}
    real = exported(votes, everyone=True)
    counted = [vote for vote in real if vote.rater not in excluded]
    if not counted:
        why = f" All {len(real)} are of excluded raters: {RULE}." if real else ""
        raise InputError(f"There are no votes to analyse.{why} Collect some with `careedit eval vote`.")
    games = [Game(vote.left_set, vote.right_set, _outcome(vote), (vote.benchmark, vote.image)) for vote in counted]
    played = {
        name: sum(name in game[:2] for game in games) for name in sorted({one for game in games for one in game[:2]})
    }
    anchor = against or max(played, key=lambda name: played[name])
    if anchor not in played:
        raise InputError(f"No vote names the set {anchor!r}; the sets are {', '.join(played)}.")
    groups = tiers_of(games)
    sets = tuple(
        one
        for group, tiers in enumerate(groups, 1)
        for tier, names in enumerate(tiers, 1)
        for one in _tier(names, games, counted, played, anchor, group, tier)
    )
    pairs = []
    for a, b in combinations([one.name for one in sets], 2):
        both = [game for game in games if {game.first, game.second} == {a, b}]
        if both:
            values = [game.outcome if game.first == b else 1 - game.outcome for game in both]
            where = ", ".join(sorted({str(game.group[0]) for game in both if isinstance(game.group, tuple)}))
            pairs.append(preference_from(values, [game.group for game in both], where, "votes", a, b))
    return VoteReport(
        votes=len(counted),
        left_out=len(real) - len(counted),
        images=len({game.group for game in games}),
        sets=sets,
        pairs=tuple(pairs),
        raters=raters,
        notes=tuple(_notes(groups, sets, counted, excluded, len(real) - len(counted))),
    )


def raters_of(votes: Sequence[Vote]) -> tuple[RaterVotes, ...]:
    """The raters who voted, by id, with their attention."""
    cast: dict[str, list[Vote]] = {}
    for vote in votes:
        if vote.verdict is not None:
            cast.setdefault(vote.rater, []).append(vote)
    return tuple(_rater(name, cast[name]) for name in sorted(cast))


def exported(votes: Sequence[Vote], *, everyone: bool = False) -> list[Vote]:
    """The votes of an export: without attention pairs, and unless `everyone` is set without excluded raters."""
    left_out = set() if everyone else {one.rater for one in raters_of(votes) if one.excluded}
    return [
        vote for vote in votes if vote.verdict is not None and vote.attention is None and vote.rater not in left_out
    ]


def _outcome(vote: Vote) -> float:
    return {"left": 1.0, "right": 0.0}.get(str(vote.verdict), 0.5)


def _rater(name: str, mine: Sequence[Vote]) -> RaterVotes:
    checks = [vote for vote in mine if vote.attention is not None]
    verdicts = [vote.verdict for vote in mine if vote.attention is None]
    return RaterVotes(
        rater=name,
        votes=len(verdicts),
        left=verdicts.count("left"),
        right=verdicts.count("right"),
        ties=verdicts.count("tie"),
        both_bad=verdicts.count("both_bad"),
        attention=len(checks),
        missed=sum(vote.missed for vote in checks),
    )


def _tier(
    names: Sequence[str], games: Sequence[Game], votes: Sequence[Vote], played: dict[str, int], anchor: str, group: int,
    tier: int,
) -> list[SetVotes]:  # fmt: skip
    """The sets of a tier, the strongest first."""
    strengths: dict[str, Strength] = {}
    if len(names) > 1:
        among = [game for game in games if game.first in names and game.second in names]
        own = anchor if anchor in names else max(sorted(names), key=lambda name: played[name])
        strengths = {one.name: one for one in davidson_strengths(among, own)[0]}
    return [
        SetVotes(
            name=name,
            votes=played[name],
            won=sum(game.outcome == (1 if game.first == name else 0) for game in games if name in game[:2]),
            lost=sum(game.outcome == (0 if game.first == name else 1) for game in games if name in game[:2]),
            both_bad=sum(vote.verdict == "both_bad" and name in (vote.left_set, vote.right_set) for vote in votes),
            group=group,
            tier=tier,
            strength=strengths[name].strength if name in strengths else None,
            interval=strengths[name].interval if name in strengths else None,
        )
        for name in strengths or names
    ]


def _notes(
    groups: Sequence[Sequence[Sequence[str]]],
    sets: Sequence[SetVotes],
    votes: Sequence[Vote],
    excluded: set[str],
    left_out: int,
) -> list[str]:
    found = []
    if len(groups) > 1:
        parts = "; ".join(", ".join(name for tier in tiers for name in tier) for tiers in groups)
        found.append(
            f"The graph of compared sets is not connected ({parts}): strengths compare only within a group. Collect votes "
            "between the groups."
        )
    for tiers in groups:
        if len(tiers) > 1:
            order = " > ".join(" = ".join(tier) if len(tier) == 1 else f"({', '.join(tier)})" for tier in tiers)
            found.append(
                f"Some sets only won or only lost: {order}. Their order is known, but the distance between these tiers has no "
                "finite estimate; collect more votes."
            )
    if any(one.strength is not None for one in sets) and all(one.interval is None for one in sets):
        found.append("Strengths have no intervals: too few source images. Collect votes on more samples.")
    identities: dict[str, set[str]] = {}
    for vote in votes:
        for name, sha256 in ((vote.left_set, vote.left_sha256), (vote.right_set, vote.right_sha256)):
            if sha256:
                identities.setdefault(name, set()).add(sha256)
    for name, several in identities.items():
        if len(several) > 1:
            found.append(
                f"{len(several)} different sets have the name {name!r}, and their votes count as votes on one; give a run to "
                "read only its votes."
            )
    if excluded:
        found.append(f"{left_out} votes of {', '.join(sorted(excluded))} are left out: {RULE}.")
    return found
