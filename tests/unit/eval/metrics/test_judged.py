"""Judges: probabilities, preferences and marks; what cannot be read is an error and never a number."""

from __future__ import annotations

import json

import pytest

from careedit.scoring import AtomicScorer, VqaScorer
from careedit.scoring.openai_answers import text_of
from careedit.scoring.openai_http import Unanswered
from careedit_eval.errors import MetricError
from careedit_eval.metrics import load_metric
from careedit_eval.metrics.judged import PairwiseWin, VqaMetric
from careedit_eval.metrics.marking import RubricMetric, combine, read_marks
from careedit_eval.metrics.rubric import Reading, load_rubric
from scripted import Scripted


@pytest.fixture
def items(make_item, draw_picture):
    return [make_item(draw_picture(seed=i), draw_picture(seed=i + 1), rival=draw_picture(seed=i + 2)) for i in range(4)]


def by_aspect(question):
    return 0.9 if "Was this done" in question.text else 0.8 if "Apart from that" in question.text else 0.5


def test_vqa_scores_are_the_judges_probabilities_and_their_product(items):
    (found, *_) = VqaMetric(VqaScorer(Scripted(by_aspect))).score(items)
    assert found.values == pytest.approx(
        {"vqa_followed": 0.9, "vqa_preserved": 0.8, "vqa_clean": 0.5, "vqa_overall": 0.36}
    )


def test_an_answer_that_cannot_be_read_is_that_rows_error(items):
    broken = items[2].edited.tobytes()

    def rule(question):
        return "It said maybe." if question.images[1].tobytes() == broken else 0.7

    measured = VqaMetric(VqaScorer(Scripted(rule))).score(items)
    errors = [found.error for found in measured]
    assert errors[2] is not None and "maybe" in errors[2]
    said = [(answer.about, answer.reply, answer.error) for i in (0, 2) for answer in measured[i].answers]
    assert said[0] == ("followed", "P(yes) = 0.7", None) and said[3] == ("followed", None, "It said maybe.")
    assert [errors[i] for i in (0, 1, 3)] == [None] * 3


def test_a_picture_that_cannot_be_read_is_not_asked_about(items, make_item, draw_picture):
    judge = Scripted(by_aspect)
    found = VqaMetric(VqaScorer(judge)).score([make_item(draw_picture(), b"nothing"), items[0]])
    assert [one.error is None for one in found] == [False, True]
    assert len(judge.asked) == 3


def test_an_edit_of_another_size_is_judged_at_its_sources(make_item, draw_picture):
    judge = Scripted(by_aspect)
    (found,) = VqaMetric(VqaScorer(judge)).score([make_item(draw_picture((64, 48)), draw_picture((128, 96)))])
    assert found.error is None
    assert {image.size for question in judge.asked for image in question.images} == {(64, 48)}


def test_a_local_judge_is_asked_item_by_item_so_that_neighbours_do_not_matter(items):
    judge = Scripted(by_aspect)
    judge.backend = "transformers"
    VqaMetric(VqaScorer(judge)).score(items)
    assert judge.calls == len(items)
    together = Scripted(by_aspect)
    VqaMetric(VqaScorer(together)).score(items)
    assert together.calls == 1


def test_another_judge_or_question_is_another_metric():
    one, other = Scripted(by_aspect), Scripted(by_aspect)
    other.revision = "2"
    specs = [
        VqaMetric(VqaScorer(one)).spec,
        VqaMetric(VqaScorer(other)).spec,
        VqaMetric(AtomicScorer(one), name="atomic").spec,
        PairwiseWin(one).spec,
    ]
    assert len({spec.key for spec in specs}) == 4
    assert VqaMetric(VqaScorer(Scripted(by_aspect))).spec.key == specs[0].key


@pytest.mark.parametrize(
    ("second_last", "first_last", "win", "consistent"),
    [(0.1, 0.9, 1.0, 1.0), (0.9, 0.1, 0.0, 1.0), (0.9, 0.9, 0.5, 0.0), (0.5, 0.5, 0.5, 1.0)],
)
def test_a_win_counts_only_in_both_orders(items, second_last, first_last, win, consistent):
    item = items[0]

    def rule(question):
        return second_last if question.images[2].tobytes() == item.rival.tobytes() else first_last

    (found,) = PairwiseWin(Scripted(rule)).score([item])
    assert found.values == {"pairwise_win": win, "pairwise_consistent": consistent}


def test_without_a_rival_there_is_no_win_and_no_loss(make_item, draw_picture):
    (found,) = PairwiseWin(Scripted(by_aspect)).score([make_item(draw_picture(), draw_picture())])
    assert "has no other edit" in found.error


@pytest.mark.parametrize(
    ("name", "endpoint", "says"),
    [
        ("vqa", {"base_url": "http://localhost:1/v1", "model": "m"}, "how it answers"),
        ("viescore", None, "a judge that writes"),
    ],
)
def test_a_judge_whose_identity_is_open_measures_nothing(name, endpoint, says):
    with pytest.raises(MetricError, match=says):
        load_metric(name, endpoint=endpoint)


def test_an_endpoint_that_says_how_it_answers_is_a_judge():
    endpoint = {"base_url": "http://localhost:1/v1", "model": "m", "answers": "json", "revision": "2026-08"}
    for name in ("vqa", "atomic", "pairwise", "viescore"):
        spec = load_metric(name, endpoint=endpoint).spec
        assert spec.backbone == "openai m"
        assert spec.revision.startswith("2026-08")


VIE = load_rubric("vie")
SCORE = Reading(array="score")


class Writing:
    """Writes by a rule of the prompt."""

    backend, model, revision = "scripted", "pen", "1"

    def __init__(self, rule):
        self.rule = rule

    def write(self, messages, turn=0):
        return [self.rule(message[-1]) for message in messages]


def marks(consistency, quality):
    said = {True: json.dumps({"score": consistency, "reasoning": "so"}), False: json.dumps({"score": quality})}
    return Writing(lambda text: said["instruction" in text])


def test_viescore_is_the_least_marks_and_the_root_of_their_product(items):
    found = RubricMetric(VIE, marks([8, 6], [9, 7])).score(items)
    assert found[0].values == pytest.approx({"vie_sc": 6, "vie_pq": 7, "vie": 6.4807}, abs=1e-4)
    assert len(found) == len(items)
    one = combine(VIE, {"done": 0, "kept": 10, "natural": 10, "clean": 10})
    assert tuple(one.values()) == (0, 10, 0)


def test_the_instruction_is_asked_about_as_it_stands(make_item, draw_picture):
    seen = []
    writer = Writing(lambda text: seen.append(text) or '{"score": [1, 1]}')
    RubricMetric(VIE, writer).score(
        [make_item(draw_picture(), draw_picture(), instruction='draw {braces} and "quotes"')]
    )
    assert 'draw {braces} and "quotes"' in seen[0]
    assert '{"score": [done, kept]' in VIE.prompts["consistency"]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "8 and 6",
        "[8, 6]",
        '{"score": 8}',
        '{"score": [8]}',
        '{"score": [8, 11]}',
        '{"score": [8, "6"]}',
        '{"score": [true, 1]}',
        '{"score": [8, NaN]}',
        '{"score": [8, 6}',
        '{"marks": [8, 6]}',
    ],
)
def test_a_reply_that_is_no_two_marks_is_an_error_and_no_random_number(items, reply):
    with pytest.raises(MetricError, match="no two marks"):
        read_marks(reply, SCORE, 2, (0, 10))
    (found,) = RubricMetric(VIE, Writing(lambda text: reply)).score(items[:1])
    assert found.values == {}
    assert "no two marks" in found.error


def test_marks_are_read_out_of_talk_around_them():
    assert read_marks('Sure!\n```json\n{"score": [7.5, 6], "reasoning": "a {b}"}\n```', SCORE, 2, (0, 10)) == (7.5, 6.0)


def test_an_endpoint_that_gives_up_is_the_rows_error(items):
    writer = Writing(lambda text: MetricError("The endpoint is gone; try later."))
    assert RubricMetric(VIE, writer).score(items[:1])[0].error == "The endpoint is gone; try later."


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"<html>", "not a chat completion"),
        (b'{"choices": []}', "not a chat completion"),
        (b'{"choices": [{"message": {"content": null, "refusal": "no"}}]}', "refused"),
        (b'{"choices": [{"message": {"content": "x"}, "finish_reason": "length"}]}', "cut off"),
        (b'{"choices": [{"message": {"content": null}}]}', "without a text"),
    ],
)
def test_a_completion_without_a_usable_text_is_a_sentence(reply, says):
    with pytest.raises(Unanswered, match=says):
        text_of(reply)
