"""Pairs of edits that people compared: votes on a run, or rows of a published benchmark for judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from careedit.errors import InputError
from careedit.files import json_digest
from careedit_eval.errors import BenchmarkError
from careedit_eval.metrics.base import ScoreItem
from careedit_eval.pictures import PictureRef
from careedit_eval.pipeline.plan import rows_of
from careedit_eval.records import EditRow, Sample
from careedit_eval.results import EditLine
from careedit_eval.runs import Run
from careedit_eval.votes_file import read_votes

VERDICTS: Mapping[str, int] = {"left": 1, "right": -1, "tie": 0, "both_bad": 0}
"""The verdicts of voters as numbers: 1 prefers the left edit, -1 the right one, 0 neither."""
PUBLISHED = "published"
"""The rater of published verdicts, which are already those of several people."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the edits of a group."""

    name: str
    """The name of the edit within its group: a set, or the hash of its image."""
    picture: PictureRef
    """The edited image, by reference to its file."""
    model: str = ""
    """The name of the model or set that edited; empty if it is not known."""


@dataclass(frozen=True, slots=True)
class RatedPair:
    """Two edits of one sample, with the verdicts of people."""

    sample: Sample
    """The edited sample; its `group` is the source image, by which intervals are clustered."""
    group: str
    """The group of edits: all edits of one sample that people compared with each other."""
    left: Candidate
    """The edit that was shown on the left."""
    right: Candidate
    """The edit that was shown on the right."""
    votes: Mapping[str, int]
    """The verdict of each rater, as in `VERDICTS`."""

    @property
    def preferred(self) -> int:
        """The verdict of the majority; 0 if as many prefer the left edit as the right one."""
        total = sum(self.votes.values())
        return (total > 0) - (total < 0)

    def item(self, candidate: Candidate, rival: Candidate | None = None) -> ScoreItem:
        """The item by which a metric measures an edit of the pair. Raises `BenchmarkError` if an image cannot be read."""
        row = EditRow(
            edit_key=candidate.picture.sha256,
            sample_id=self.sample.id,
            kind=self.sample.kind,
            group=self.sample.group,
            arm=candidate.name,
            seed=0,
            picture=candidate.name,
            picture_sha256=candidate.picture.sha256,
        )
        return ScoreItem(self.sample, row, candidate.picture.read(), None if rival is None else rival.picture.read())


@dataclass(frozen=True)
class Rated:
    """All pairs of one source of verdicts."""

    name: str
    """Where the verdicts are from, in words, for the check's file."""
    pairs: tuple[RatedPair, ...]
    """The pairs, in the order of the file."""
    unusable: tuple[str, ...] = ()
    """Why rows of a published file cannot be used, one sentence each."""

    @property
    def groups(self) -> dict[str, list[RatedPair]]:
        """The pairs of each group."""
        found: dict[str, list[RatedPair]] = {}
        for pair in self.pairs:
            found.setdefault(pair.group, []).append(pair)
        return found

    @property
    def digest(self) -> str:
        """The sha256 over sources, instructions, edits and verdicts."""
        return json_digest(
            [
                [
                    one.sample.source.sha256,
                    one.sample.instruction,
                    one.left.picture.sha256,
                    one.right.picture.sha256,
                    one.votes,
                ]
                for one in self.pairs
            ]
        )

    def complete(self, size: int) -> Iterator[list[RatedPair]]:
        """The pairs of every group of `size` edits in which people compared every two edits."""
        for pairs in self.groups.values():
            names = {one.name for pair in pairs for one in (pair.left, pair.right)}
            compared = {frozenset((pair.left.name, pair.right.name)) for pair in pairs}
            if len(names) == size and len(compared) == len(list(combinations(names, 2))):
                yield pairs


def rated_votes(file: Path, run: Run) -> Rated:
    """The votes of a file on the edits of `run`, by its suite's first seed. The last vote of a rater on a pair counts,
    whichever edit was on the left.

    Raises `InputError` for a line that is not a vote on the run, or that names a sample, set or edit that the run does not have.
    """
    samples = {(name, one.id): one for name, scored in _rows(run) for one in scored}
    votes: dict[tuple[str, str, str, str], dict[str, int]] = {}
    for number, vote in read_votes(file, run.record.id).items():
        where = f"{file}, line {number}"
        if (vote.benchmark, vote.sample) not in samples:
            raise InputError(
                f"{where}: the run {run.record.id} has no sample {vote.sample!r} of {vote.benchmark!r}; give the run that was "
                "voted on."
            )
        if vote.left == vote.right:
            raise InputError(f"{where}: both sides are the set {vote.left!r}; a vote compares two sets.")
        value, left, right = VERDICTS[vote.verdict], vote.left, vote.right
        if (vote.benchmark, vote.sample, right, left) in votes:
            value, left, right = -value, right, left
        votes.setdefault((vote.benchmark, vote.sample, left, right), {})[vote.rater] = value
    if not votes:
        raise InputError(f"{file} has no votes; collect some with `careedit eval vote`.")
    pairs = tuple(
        RatedPair(
            sample=_placed(samples[benchmark, name], benchmark),
            group=f"{benchmark}/{name}",
            left=_candidate(run, benchmark, name, left),
            right=_candidate(run, benchmark, name, right),
            votes=given,
        )
        for (benchmark, name, left, right), given in votes.items()
    )
    return Rated(f"{file.name}, votes on the run {run.record.id}", pairs)


def _rows(run: Run) -> Iterator[tuple[str, Sequence[Sample]]]:
    """The samples of the run's benchmarks. Raises `BenchmarkError` if they are not those of the run any more."""
    narrowed = run.record.narrowed
    fingerprints = {facts.name: facts.fingerprint for facts in run.record.benchmarks}
    for rows in rows_of(run.record.suite, narrowed.limit if narrowed is not None else None):
        if fingerprints.get(rows.name) != rows.fingerprint:
            raise BenchmarkError(
                f"The rows of {rows.name} have changed since the run {run.record.id}; give a newer run and its votes."
            )
        yield rows.name, rows.scored


def _placed(sample: Sample, benchmark: str) -> Sample:
    """The sample with a group that no other benchmark has."""
    return sample.model_copy(update={"group": f"{benchmark}/{sample.group}"})


def _candidate(run: Run, benchmark: str, sample: str, name: str) -> Candidate:
    line: EditLine | None = run.table.edits_of(benchmark, name).get((sample, run.record.suite.seeds[0]))
    if line is None:
        known = ", ".join(run.table.arms(benchmark))
        raise InputError(f"The run {run.record.id} has no set {name!r}, which a vote names; its sets are {known}.")
    if line.picture is None:
        raise InputError(
            f"A vote is about the edit of {sample!r} by {name!r}, which failed in this run ({line.error})."
        )
    path = run.store / line.picture
    try:
        return Candidate(name, PictureRef(sha256=PictureRef.of(path.read_bytes()).sha256, uri=str(path)), name)
    except OSError as error:
        raise InputError(f"The image {path} cannot be read ({error.strerror}); give the run with its store.") from error
