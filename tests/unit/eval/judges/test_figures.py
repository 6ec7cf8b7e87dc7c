"""The figures of a judge, against published values and counting by hand."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from scipy.stats import kendalltau

from careedit_eval.judges.figures import ABOUT, FIGURES, Judged, figures_of, krippendorff_alpha, tau_b
from careedit_eval.judges.pairs import Candidate, Rated, RatedPair
from careedit_eval.pictures import PictureRef
from careedit_eval.records import Sample
from careedit_eval.suite import FigureName
from scripted_eval import file_of

PICTURE = PictureRef.of(file_of(1))


def pair(group: str, left: str, right: str, *votes: int) -> RatedPair:
    sample = Sample(id=group, kind="Add", instruction="add", source=PICTURE, group=group)
    edits = (Candidate(name, PICTURE, name) for name in (left, right))
    return RatedPair(sample, group, *edits, {f"r{number}": vote for number, vote in enumerate(votes)})


def test_every_figure_that_may_have_a_floor_is_explained_and_made() -> None:
    assert set(get_args(FigureName)) == set(FIGURES) < set(ABOUT)
    assert list(figures_of(Rated("", (pair("g", "a", "b", 1),)), [Judged(1)])) == list(ABOUT)


def test_krippendorffs_alpha_is_that_of_his_own_example() -> None:
    # Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section E: four observers, interval data, 0.849.
    observers = (
        (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
        (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
        (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
        (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
    )
    units = [[value for value in unit if value is not None] for unit in zip(*observers, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.849, abs=0.0005)
    assert krippendorff_alpha([(1, 1), (1, 1)]) is None and krippendorff_alpha([(1,)]) is None


def test_tau_b_over_all_pairs_of_a_group_is_scipys() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 4, 9), rng.integers(0, 4, 9)
    verdicts = [
        (int(np.sign(first[i] - first[j])), int(np.sign(second[i] - second[j]))) for i in range(9) for j in range(i)
    ]
    assert tau_b(verdicts) == pytest.approx(kendalltau(first, second).statistic)
    assert tau_b([(0, 1)]) is None


def test_a_group_counts_only_if_every_pair_is_right_and_an_incomplete_group_not_at_all() -> None:
    three = (pair("g", "a", "b", 1), pair("g", "a", "c", 1), pair("g", "b", "c", 0))
    broken = (pair("h", "a", "b", 1), pair("h", "a", "c", 1))
    two = (pair("i", "a", "b", -1),)
    rated = Rated("", (*three, *broken, *two))
    found = figures_of(rated, [Judged(1), Judged(1), Judged(0), Judged(1), Judged(1), Judged(1)])
    assert (found["accuracy_3"].value, found["accuracy_3"].n) == (1.0, 1)
    assert (found["accuracy_2"].value, found["accuracy_4"].value) == (0.0, None)
    assert found["accuracy"].value == pytest.approx(5 / 6) and found["accuracy_untied"].value == pytest.approx(4 / 5)
    missed = figures_of(rated, [Judged(1), Judged(None, error="no"), Judged(0), Judged(1), Judged(1), Judged(1)])
    assert missed["accuracy_3"].value == 0.0 and missed["accuracy"].value == pytest.approx(4 / 6)
    assert missed["tau"].n == 5


def test_which_edit_is_on_the_left_changes_no_figure() -> None:
    rng = np.random.default_rng(5)
    pairs, judged, turned, answers = [], [], [], []
    for number in range(40):
        votes, said = rng.integers(-1, 2, 3).tolist(), int(rng.integers(-1, 2))
        pairs.append(pair(f"g{number}", "a", "b", *votes))
        judged.append(Judged(said, bool(number % 3), said))
        turns = number % 2 == 0
        sides, sign = (("b", "a"), -1) if turns else (("a", "b"), 1)
        turned.append(pair(f"g{number}", *sides, *(sign * vote for vote in votes)))
        answers.append(Judged(sign * said, bool(number % 3), sign * said))
    first = figures_of(Rated("", tuple(pairs)), judged, own=("a",))
    assert first == figures_of(Rated("", tuple(turned)), answers, own=("a",))
    assert all(first[name].value is not None for name in ABOUT if name not in ("accuracy_3", "accuracy_4"))


def test_a_judge_prefers_its_own_edits_by_what_it_adds_to_peoples_share() -> None:
    pairs = tuple(pair(f"g{number}", "own", "other", 1 if number < 2 else -1) for number in range(10))
    found = figures_of(Rated("", pairs), [Judged(1)] * 8 + [Judged(-1)] * 2, own=("own",))["self_preference"]
    assert found.value == pytest.approx(0.8 - 0.2) and found.low is not None and found.low > 0
    assert figures_of(Rated("", pairs), [Judged(1)] * 10)["self_preference"].value is None


def test_majorities_ties_and_second_answers_are_counted() -> None:
    pairs = (pair("g", "a", "b", 1, 1, -1), pair("h", "a", "b", 1, -1))
    found = figures_of(Rated("", pairs), [Judged(1, again=-1), Judged(0, again=0)])
    assert found["accuracy"].value == 1.0 and found["retest"].value == 0.5
    assert found["order_consistency"].value == 1.0 and "one edit at a time" in found["order_consistency"].note
    assert found["alpha_people"].value is not None and math.isfinite(found["alpha_people"].value)
