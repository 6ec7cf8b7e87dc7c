"""Pairwise judging: both orders are asked, and where they disagree it is a tie."""

from __future__ import annotations

import pytest
from PIL import Image

from careedit.errors import InputError
from careedit.scoring.pairwise import Pair, Preference, compare, order_consistency
from careedit.scoring.scorer import Question
from scripted import Scripted


def picture(shade: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB", size, (shade, shade, shade))


def shade_of(image: Image.Image) -> int:
    return int(image.getextrema()[0][0])


def brighter_is_better(question: Question) -> float:
    earlier, later = (shade_of(image) for image in question.images[1:3])
    return 0.9 if later > earlier else 0.1 if later < earlier else 0.5


def pair(first: int, second: int) -> Pair:
    return Pair(source=picture(0), first=picture(first), second=picture(second), instruction="make it brighter")


def test_the_better_edit_wins_wherever_it_is_shown():
    preferences = compare(Scripted(brighter_is_better), [pair(200, 50), pair(50, 200), pair(50, 50)])
    assert [preference.winner for preference in preferences] == ["first", "second", "tie"]
    assert [preference.first for preference in preferences] == pytest.approx([0.9, 0.1, 0.5])
    assert order_consistency(preferences) == 1.0


def test_both_orders_are_asked_in_one_call_with_the_source_in_front():
    asker = Scripted(brighter_is_better)
    compare(asker, [pair(200, 50), pair(30, 40)])
    assert asker.calls == 1
    shown = [[shade_of(image) for image in question.images] for question in asker.asked]
    assert shown == [[0, 200, 50], [0, 50, 200], [0, 30, 40], [0, 40, 30]]
    assert all("make it brighter" in question.lead for question in asker.asked)


@pytest.mark.parametrize("favour", [0.9, 0.2])
def test_a_judge_that_goes_by_the_place_makes_ties_and_is_found_out(favour):
    preferences = compare(Scripted(lambda _: favour), [pair(200, 50), pair(50, 200)])
    assert [preference.winner for preference in preferences] == ["tie", "tie"]
    assert [preference.first for preference in preferences] == pytest.approx([0.5, 0.5])
    assert order_consistency(preferences) == 0.0


def test_an_answer_that_cannot_be_read_is_an_error_and_counts_for_nothing():
    def rule(question: Question) -> float | str:
        return "The model refused." if shade_of(question.images[1]) == 7 else brighter_is_better(question)

    broken, whole = compare(Scripted(rule), [pair(200, 7), pair(200, 50)])
    assert (broken.first, broken.winner, broken.error) == (None, None, "The model refused.")
    assert whole.winner == "first"
    assert order_consistency([broken, whole]) == 1.0
    with pytest.raises(InputError, match="at least one preference"):
        order_consistency([broken])


def test_a_reference_is_shown_first_and_spoken_of():
    asker = Scripted(brighter_is_better)
    compare(
        asker,
        [
            Pair(
                source=picture(0),
                first=picture(1),
                second=picture(2),
                instruction="as there",
                references=(picture(99),),
            )
        ],
    )
    shown = [[shade_of(image) for image in question.images] for question in asker.asked]
    assert shown == [[99, 0, 1, 2], [99, 0, 2, 1]]
    assert all("the first picture as its reference" in question.lead for question in asker.asked)


def test_edits_of_another_size_are_refused():
    with pytest.raises(InputError, match=r"second edit is 9x8 but its source is 8x8"):
        Pair(source=picture(0), first=picture(1), second=picture(2, (9, 8)), instruction="make it brighter")


def test_a_preference_is_a_number_or_an_error_and_never_both():
    (good,) = compare(Scripted(brighter_is_better), [pair(200, 50)])
    with pytest.raises(InputError, match="either its numbers or an error"):
        Preference(first=0.5, winner="tie", orders=good.orders, judge=good.judge, error="no")
    assert good.judge.prompts == "pairwise-2"
