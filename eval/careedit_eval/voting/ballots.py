"""The pairs of a run that raters compare: which one comes next, on which side each set is, and the images of both sides.

The next pair is about the two sets of which one more verdict says most (`pair_information`), on a sample that has the fewest
verdicts. A pair is stored before it is shown. So a page that is loaded again, or a server that starts again, shows the same
pair, and raters who vote at the same time get different ones.
"""

from __future__ import annotations

import io
import logging
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from PIL import Image

from careedit.errors import CareEditError, InputError
from careedit.files import png_bytes
from careedit_eval.records import Sample
from careedit_eval.stats import pair_information
from careedit_eval.viewer import ViewedRun
from careedit_eval.voting.analysis import raters_of
from careedit_eval.voting.table import VoteTable
from careedit_eval.voting.votes import Attention, Vote, rater_of, verdict_of

logger = logging.getLogger(__name__)

EVERY = 8
"""Of this many pairs that a rater sees in a row, one is an attention pair."""
PENDING_S = 600
"""Seconds for which a pair that another rater sees counts as one that is about to have a verdict."""
BLOCKS = 12
"""The number of blocks of noise along a side of a damaged image."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Two edits of one sample that a rater may compare."""

    benchmark: str
    """The name of the benchmark."""
    sample: str
    """The id of the sample."""
    seed: int
    """The seed of both edits."""
    image: str
    """The source image or session of the sample."""
    sets: tuple[str, str]
    """The names of the two sets, in the order of the run."""


class Ballots:
    """The pairs of one run for any number of raters and threads."""

    def __init__(
        self, viewed: ViewedRun, table: VoteTable, sets: Sequence[str] = (), *, rng: random.Random | None = None
    ) -> None:
        """`sets` are compared; by default the suite's sets and those that it compares. Raises `InputError` if the run has no pair to show."""
        self._viewed, self._table, self._rng = viewed, table, rng or random.SystemRandom()
        self._lock = threading.Lock()
        self.sets = _compared(viewed, sets)
        """The names of the compared sets, in the order of the run."""
        self._identity = {facts.name: facts.identity_sha256 for facts in viewed.run.record.sets}
        self._candidates = _candidates(viewed, self.sets)
        if not self._candidates:
            raise InputError(
                f"The run {viewed.id} has no sample that two of {', '.join(self.sets)} edited; give another run or other sets."
            )
        first = self._candidates[0]
        self._session(first.benchmark, first.sample)  # a benchmark that is not here is refused now
        self._unusable: set[Candidate] = set()
        # Two pairs of images of every rater at once; the table, not this cache, knows what was shown.
        self._edit = lru_cache(maxsize=64)(self._read_edit)

    def next_pair(self, rater: object) -> dict[str, object]:
        """The pair that a rater sees next, as JSON data without a name; its `pair` is None if the rater has seen all.

        Raises `InputError` for an id that is not a rater's, or `VotesError`.
        """
        name = rater_of(rater)
        with self._lock:
            votes = self._table.votes(self._viewed.id)
            mine = [vote for vote in votes if vote.rater == name]
            done = sum(vote.verdict is not None for vote in mine)
            vote = next((one for one in mine if one.verdict is None and self._can_show(one)), None)
            if vote is None:
                vote = self._offered(name, mine, votes)
                if vote is None:
                    return {"pair": None, "votes": done}
                self._table.offer(vote)
        turns = self._session(vote.benchmark, vote.sample)
        return {
            "pair": vote.id,
            "votes": done,
            "instructions": [turn.instruction for turn in turns],
            "references": len(turns[-1].references),
        }

    def vote(self, rater: object, pair: object, verdict: object) -> None:
        """Store a verdict; the same one again changes nothing. Raises `InputError` or `VotesError`."""
        self._table.record(str(pair)[:64], rater_of(rater), verdict_of(verdict), time.time())

    def picture(self, pair: str, place: str) -> bytes:
        """The image at a place of a shown pair, as a PNG file: "left", "right", "source" or "reference-N".

        Raises `InputError`, whose message names neither set, or `VotesError`.
        """
        vote = self._table.find(pair[:64])
        if vote is None or vote.run != self._viewed.id:
            raise InputError("This pair does not exist; load the page again.")
        try:
            if place not in ("left", "right"):
                turns = self._session(vote.benchmark, vote.sample)
                return self._viewed.picture(vote.benchmark, turns[0 if place == "source" else -1].id, place)
            name = vote.left_set if place == "left" else vote.right_set
            data = self._edit(vote.benchmark, name, vote.sample, vote.seed)
            whole = vote.attention in (None, "same", place)
            return data if whole else _damaged(data, vote.id)
        except CareEditError as error:
            logger.warning("An image of a pair cannot be read: %s", error)  # it may name a set, so raters do not see it
            raise InputError("This image cannot be read; the server's log says why.") from None

    def _offered(self, rater: str, mine: Sequence[Vote], votes: Sequence[Vote]) -> Vote | None:
        """A new pair for a rater; None if the rater has seen all."""
        chosen = next((one for one in self._by_information(rater, votes) if self._is_usable(one)), None)
        if chosen is None:
            return None
        left, right = chosen.sets if self._rng.random() < 0.5 else chosen.sets[::-1]
        attention: Attention | None = None
        block, place = divmod(len(mine), EVERY)
        if random.Random(f"{rater} {block}").randrange(EVERY) == place:
            # Of any sample, so that the next pair does not show the same edit again.
            others = self._rng.sample(self._candidates, min(16, len(self._candidates)))
            chosen = next((one for one in others if self._is_usable(one)), chosen)
            left = right = self._rng.choice(chosen.sets)
            sides: tuple[Attention, ...] = ("left", "right")
            attention = self._rng.choice(sides) if block % 2 else "same"
        return Vote(
            id=secrets.token_hex(16),
            run=self._viewed.id,
            rater=rater,
            benchmark=chosen.benchmark,
            sample=chosen.sample,
            seed=chosen.seed,
            image=chosen.image,
            left_set=left,
            right_set=right,
            left_sha256=self._identity.get(left, ""),
            right_sha256=self._identity.get(right, ""),
            attention=attention,
            offered=time.time(),
        )

    def _by_information(self, rater: str, votes: Sequence[Vote]) -> Iterator[Candidate]:
        """The pairs that a rater has not seen, those that say most first."""
        place = {name: i for i, name in enumerate(self.sets)}
        counts = np.zeros((len(place), len(place), 3))
        pending = np.zeros(counts.shape[:2])
        known: Counter[Candidate] = Counter()
        images: Counter[tuple[str, str]] = Counter()
        seen = set()
        careless = {one.rater for one in raters_of(votes) if one.excluded}
        for vote in votes:
            if vote.attention is not None or vote.left_set not in place or vote.right_set not in place:
                continue
            left, right = place[vote.left_set], place[vote.right_set]
            pair = _pair(vote, place)
            if vote.rater == rater:
                seen.add(pair)
            if vote.rater in careless:
                continue  # the analysis leaves these votes out
            if vote.verdict is not None:
                counts[left, right, {"right": 0, "left": 2}.get(vote.verdict, 1)] += 1
            elif vote.rater != rater and time.time() - vote.offered < PENDING_S:
                pending[left, right] += 1
            else:
                continue
            known[pair] += 1
            images[pair.benchmark, pair.image] += 1
        gain = pair_information(counts, pending)
        pairs = list(combinations(self.sets, 2))
        self._rng.shuffle(pairs)
        pairs.sort(key=lambda pair: -round(float(gain[place[pair[0]], place[pair[1]]]), 9))
        order = {pair: i for i, pair in enumerate(pairs)}
        new = [one for one in self._candidates if one not in seen]
        self._rng.shuffle(new)  # among equal ones, any
        yield from sorted(new, key=lambda one: (order[one.sets], known[one], images[one.benchmark, one.image]))

    def _is_usable(self, one: Candidate) -> bool:
        """Whether all images can be read and the edits differ: equal ones say nothing about the sets."""
        if one in self._unusable:
            return False
        try:
            turns = self._session(one.benchmark, one.sample)
            if not turns[-1].scored:  # it only leads to a later turn
                self._unusable.add(one)
                return False
            self._viewed.picture(one.benchmark, turns[0].id, "source")
            a, b = (self._edit(one.benchmark, name, one.sample, one.seed) for name in one.sets)
        except CareEditError as error:
            logger.warning("A pair is left out: %s", error)
            self._unusable.add(one)
            return False
        if a == b:
            self._unusable.add(one)
        return a != b

    def _can_show(self, vote: Vote) -> bool:
        try:
            self._session(vote.benchmark, vote.sample)
            for name in (vote.left_set, vote.right_set):
                self._edit(vote.benchmark, name, vote.sample, vote.seed)
        except CareEditError:
            return False
        return {vote.left_set, vote.right_set} <= set(self.sets)

    def _session(self, benchmark: str, sample: str) -> list[Sample]:
        """The sample and the turns before it, first turn first: its edit is the result of all of them."""
        turns = [self._viewed.sample(benchmark, sample)]
        while (previous := turns[0].previous) is not None:
            turns.insert(0, self._viewed.sample(benchmark, previous))
        return turns

    def _read_edit(self, benchmark: str, name: str, sample: str, seed: int) -> bytes:
        """The pixels of an edit as a new PNG file: the stored one may name its set."""
        data = self._viewed.edited(benchmark, name, sample, seed)
        try:
            with Image.open(io.BytesIO(data)) as picture:
                return png_bytes(
                    Image.frombytes("RGB", picture.size, picture.convert("RGB").tobytes()), compress_level=1
                )
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"The edit of {sample!r} by {name!r} is damaged ({error}).") from error


def _compared(viewed: ViewedRun, sets: Sequence[str]) -> tuple[str, ...]:
    """The sets to compare, in the order of the run. Raises `InputError`."""
    run = viewed.run
    arms = list(dict.fromkeys(arm for benchmark in run.table.benchmarks for arm in run.table.arms(benchmark)))
    unknown = [name for name in sets if name not in arms]
    if unknown:
        raise InputError(f"The run {viewed.id} has no set {unknown[0]!r}; its sets and rows are {', '.join(arms)}.")
    suite = run.record.suite
    compared = {name for one in suite.compare for name in (one.a, one.b)}
    wanted = set(sets) or {arm.name for arm in suite.sets} | compared
    found = tuple(arm for arm in arms if arm in wanted)
    if len(found) < 2:
        raise InputError(
            f"A vote compares two sets or more, and there is only {', '.join(found) or 'nothing'} to compare; name sets and "
            f"rows with --set: {', '.join(arms) or 'the run has none'}."
        )
    return found


def _candidates(viewed: ViewedRun, sets: Sequence[str]) -> list[Candidate]:
    """The pairs of edits by the suite's first seed: an exported vote names a sample and no seed."""
    table, first = viewed.run.table, viewed.run.record.suite.seeds[0]
    found = []
    for benchmark in table.benchmarks:
        for pair in combinations(sets, 2):
            a, b = (table.edits_of(benchmark, name) for name in pair)
            found += [
                Candidate(benchmark, sample, seed, line.group, pair)
                for (sample, seed), line in a.items()
                if seed == first
                and line.picture is not None
                and (sample, seed) in b
                and b[sample, seed].picture is not None
            ]
    return found


def _pair(vote: Vote, place: dict[str, int]) -> Candidate:
    a, b = sorted((vote.left_set, vote.right_set), key=place.__getitem__)
    return Candidate(vote.benchmark, vote.sample, vote.seed, vote.image, (a, b))


def _damaged(data: bytes, seed: str) -> bytes:
    """A PNG file under blocks of coloured noise: no rater who looks prefers it."""
    with Image.open(io.BytesIO(data)) as picture:
        whole = picture.convert("RGB")
    rng = np.random.default_rng(list(seed.encode()))
    noise = Image.fromarray(rng.integers(0, 256, (BLOCKS, BLOCKS, 3), np.uint8))
    return png_bytes(Image.blend(whole, noise.resize(whole.size, Image.Resampling.NEAREST), 0.6), compress_level=1)
