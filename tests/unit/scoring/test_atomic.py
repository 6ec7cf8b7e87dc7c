"""Atomic judging: what an instruction is broken into, and what the answers make of an edit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from careedit.scoring.atomic import Atom, AtomicScorer, atoms_of
from careedit.scoring.scorer import Question, ScoreRequest
from scripted import Scripted

RED, BLUE, GREY = (Image.new("RGB", (8, 8), colour) for colour in ((200, 0, 0), (0, 0, 200), (90, 90, 90)))


def request(instruction: str, **fields: object) -> ScoreRequest:
    return ScoreRequest(source=RED, edited=BLUE, instruction=instruction, **fields)


def wanted(instruction: str) -> dict[str, bool]:
    """The questions whether `instruction` was followed, with the wanted answers."""
    return {atom.text: atom.wanted for atom in atoms_of(instruction) if atom.aspect == "followed"}


@pytest.mark.parametrize(
    ("instruction", "questions"),
    [
        ("Remove the old bicycle", {"Can the old bicycle of the first picture still be seen in the second?": False}),
        (
            "please get rid of all the cars",
            {"Can any of the cars of the first picture still be seen in the second?": False},
        ),
        ("take every cup off the table", {"Can any cup of the first picture still be seen in the second?": False}),
        (
            "add a hat to the man",
            {
                "Does the second picture show a hat where the first does not?": True,
                "Does the second picture show a hat on or near the man?": True,
            },
        ),
        (
            "In the background, add two sailing boats.",
            {
                "Does the second picture show two sailing boats where the first does not?": True,
                "Does the second picture show two sailing boats in the background?": True,
            },
        ),
        (
            "Could you replace the Eiffel Tower with a lighthouse?",
            {
                "Does the second picture show a lighthouse?": True,
                "Can the Eiffel Tower of the first picture still be seen in the second?": False,
                "Did a lighthouse take the place of the Eiffel Tower?": True,
            },
        ),
        ("change the colour of her coat to dark green", {"Did her coat become dark green in the second picture?": True}),
        ("make the building much taller", {"Did the building become much taller in the second picture?": True}),
        ("there should be exactly three apples", {"Are there exactly three apples in the second picture?": True}),
        (
            "move the lamp to the left of the sofa",
            {
                "Does the second picture show the lamp to the left of the sofa?": True,
                "Is the lamp still where it was in the first picture?": False,
            },
        ),
        ("slide the box a bit to the right", {"Did the box move a bit to the right from the first picture to the second?": True}),
        ("rotate the bottle upside down", {"Did the bottle turn upside down from the first picture to the second?": True}),
        ("make the man wave at the camera", {"Can the man be seen to wave at the camera in the second picture?": True}),
        ("turn the arrow so that it points up", {"Is it true of the second picture that the arrow points up?": True}),
        ("change the background to a sandy beach", {"Did the background become a sandy beach in the second picture?": True}),
        ("make it look like an oil painting", {"Does the second picture look like an oil painting?": True}),
        ("make the picture brighter", {"Did the picture become brighter, going from the first to the second?": True}),
        ("close her eyes", {'Was this done from the first picture to the second: "close her eyes"?': True}),
        ("把狗去掉", {'Was this done from the first picture to the second: "把狗去掉"?': True}),
    ],
)  # fmt: skip
def test_an_instruction_is_broken_into_questions(instruction, questions):
    assert wanted(instruction) == questions


def test_clauses_are_separated_and_it_means_the_last_thing():
    assert wanted("Take the ball and put it on the shelf, then paint the wall light blue.") == {
        "Does the second picture show the ball on the shelf?": True,
        "Did the wall become light blue in the second picture?": True,
    }


def test_things_joined_by_and_are_not_torn_apart():
    assert wanted("remove the cup and the plate") == {
        "Can the cup and the plate of the first picture still be seen in the second?": False
    }


@pytest.mark.parametrize(
    ("instruction", "kept"),
    [
        ("make the dog blue but keep the fence", "the fence"),
        ("paint the door green without changing the wall", "the wall"),
        ("make it a sketch, her face stays the same", "her face"),
        ("remove everything except the dog", "the dog"),
    ],
)
def test_what_is_to_stay_is_asked_about(instruction, kept):
    kept_question = Atom("preserved", f"Did {kept} change from the first picture to the second?", wanted=False)
    assert kept_question in atoms_of(instruction)


@pytest.mark.parametrize(
    ("instruction", "background", "colours"),
    [
        ("remove the cup", True, True),
        ("make the background pink", False, True),
        ("turn this photo into a watercolor", False, False),
        ("apply a sepia filter", False, False),
    ],
)
def test_unwanted_change_is_asked_about_unless_the_edit_brings_it(instruction, background, colours):
    unwanted = " ".join(a.text for a in atoms_of(instruction) if a.aspect == "preserved" and not a.wanted)
    assert ("Was the background changed" in unwanted) == background
    assert ("given another color" in unwanted) == colours
    assert "Was anything else added?" in unwanted
    assert "Was anything else taken away?" in unwanted


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            (
                "make",
                "turn",
                "the",
                "a",
                "to",
                "into",
                "and",
                "but",
                "keep",
                "it",
                "all",
                "red",
                "{x}",
                "dog,",
                "on",
                ".",
            )
        ),
        min_size=1,
        max_size=60,
    ).map(" ".join)
    | st.text(min_size=1, max_size=80)
)
def test_any_text_gives_questions_and_at_least_one_whether_it_was_followed(text):
    atoms = atoms_of(text)
    assert any(atom.aspect == "followed" for atom in atoms)
    assert len(set(atoms)) == len(atoms)


def test_a_right_edit_scores_one_and_each_wrong_answer_lowers_its_own_aspect():
    def score(*wrong: str):
        unwanted = ("still be seen", "anything else", "background changed")

        def rule(question: Question) -> float:
            text = question.text
            right = 0.0 if any(part in text for part in unwanted) else 1.0
            return 1 - right if any(part in text for part in wrong) else right

        return AtomicScorer(Scripted(rule)).score([request("replace the dog with a cat")])[0]

    right = score()
    assert (right.followed, right.preserved, right.clean, right.overall) == (1.0, 1.0, 1.0, 1.0)
    both = score("still be seen")
    assert both.followed == pytest.approx(2 / 3)
    assert (both.preserved, both.clean) == (1.0, 1.0)
    assert score("else added").preserved == pytest.approx(3 / 4)
    assert score("free of artefacts").clean == 0.0


def test_the_score_explains_itself_by_its_questions():
    scorer = AtomicScorer(Scripted(lambda question: 0.25))
    (score,) = scorer.score([request("remove the cup")])
    (gone,) = (entry for entry in score.asked if entry.aspect == "followed")
    assert gone.question.startswith("Can the cup of the first picture still be seen in the second?")
    assert (gone.wanted, gone.answer.yes) == (False, 0.25)
    assert score.followed == 0.75
    assert score.judge == scorer.identity
    assert score.judge.prompts == "atomic-2"


def test_edits_are_judged_in_one_call_and_keep_their_order():
    asker = Scripted(lambda question: 1.0 if "cat" in question.text else 0.0)
    scores = AtomicScorer(asker).score([request("add a cat"), request("add a dog"), request("add a cat")])
    assert asker.calls == 1
    assert [score.followed for score in scores] == [1.0, 0.0, 1.0]
    assert all(question.images == (RED, BLUE) for question in asker.asked)


def test_an_answer_that_cannot_be_read_makes_the_whole_score_an_error():
    broken, whole = AtomicScorer(Scripted(lambda question: "It timed out." if "cat" in question.text else 0.5)).score(
        [request("add a cat"), request("add a dog")]
    )
    assert (broken.overall, broken.error) == (None, "followed: It timed out.")
    assert whole.error is None


def test_an_edit_by_a_reference_is_asked_about_as_a_whole():
    asker = Scripted(lambda question: 0.5)
    AtomicScorer(asker).score([request("paint the door in the color of the reference", references=(GREY,))])
    followed, *unwanted, clean = asker.asked
    assert followed.images == clean.images == (GREY, RED, BLUE)
    assert "the first picture as its reference" in followed.lead
    assert all(question.images == (RED, BLUE) for question in unwanted)
    assert len(asker.asked) > 3
