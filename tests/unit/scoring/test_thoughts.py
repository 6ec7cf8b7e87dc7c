"""A judge that thinks before it answers: the thought is cut, what follows is read strictly, and a thought is no answer."""

import json

import pytest

from careedit.scoring.openai_answers import text_of, without_thought, yes_by_json
from careedit.scoring.openai_http import Unanswered
from careedit_eval.errors import MetricError
from careedit_eval.metrics.marking import read_marks as read_any_marks
from careedit_eval.metrics.rubric import Reading

YES = '{"answer": "yes", "confidence": 0.9}'
MARKS = '{"score": [8, 6], "reasoning": "so"}'
DRAFT = 'Perhaps {"score": [1, 1]}, or {"answer": "no", "confidence": 1}? '


def read_marks(text):
    return read_any_marks(text, Reading(array="score"), 2, (0, 10))


def reply(content, finish="stop", **fields) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content, **fields}, "finish_reason": finish}]}).encode()


THOUGHTS = [
    f"<think>{DRAFT}</think>",
    f"\n<think>\n{DRAFT}\n</think>\n\n",
    f"<THINKING>{DRAFT}</THINKING>\n",
    f"{DRAFT}</think>\n",
    f"<think>{DRAFT}</think><think>{DRAFT}</think>",
    f"<think>a <think> b </think> {DRAFT}</think>",
    f'<think budget="9">{DRAFT}</think >',
    f"<seed:think>{DRAFT}</seed:think>",
    f"[THINK]{DRAFT}[/THINK]",
    f"◁think▷{DRAFT}◁/think▷",
    f"<|begin_of_thought|>{DRAFT}<|end_of_thought|>",
    "<think></think>",
]


@pytest.mark.parametrize("thought", THOUGHTS)
def test_a_thought_before_the_answer_is_cut(thought):
    assert yes_by_json(reply(thought + YES)) == 0.9
    assert read_marks(thought + MARKS) == (8.0, 6.0)
    assert read_marks(f"{thought}Here you are:\n```json\n{MARKS}\n```") == (8.0, 6.0)


@pytest.mark.parametrize(
    "text", [f"<think>{DRAFT}{YES}{MARKS}", f"</think><think>{YES}{MARKS}", f"<think>{DRAFT}{YES}{MARKS}</think>", f"[THINK]{MARKS}{YES}"]
)  # fmt: skip
def test_a_thought_that_does_not_end_or_that_nothing_follows_is_no_answer(text):
    with pytest.raises(Unanswered, match=r"did not end|no answer after it"):
        yes_by_json(reply(text))
    with pytest.raises(MetricError, match=r"did not end|no answer after it"):
        read_marks(text)


@pytest.mark.parametrize("after", ["yes", "8 and 6", f"{YES} {YES}", f"{MARKS} {MARKS}", "{", f"not {{json}} {MARKS}"])
def test_what_follows_a_thought_is_read_strictly(after):
    with pytest.raises(Unanswered):
        yes_by_json(reply(f"<think>{YES}</think>{after}"))
    with pytest.raises(MetricError):
        read_marks(f"<think>{MARKS}</think>{after}")


def test_reasoning_in_json_of_its_own_is_not_taken_for_the_marks():
    assert read_marks('```json\n{"reasoning": "all is well"}\n```\n```json\n{"score": [7, 9]}\n```') == (7.0, 9.0)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_thought_in_a_field_of_its_own_is_never_read(name):
    assert yes_by_json(reply(YES, **{name: DRAFT})) == 0.9
    for content in (None, "", "  "):
        with pytest.raises(Unanswered, match="without a text, only a thought"):
            text_of(reply(content, **{name: YES}))


def test_an_answer_in_parts_is_its_texts_without_the_thoughts():
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": DRAFT}]}, {"type": "text", "text": YES}]
    assert yes_by_json(reply(parts)) == 0.9


def test_an_answer_that_was_cut_off_says_how_to_give_it_room():
    with pytest.raises(Unanswered, match=r"cut off.*max_tokens"):
        yes_by_json(reply(YES, finish="length"))


def test_an_answer_without_a_thought_is_what_it_was():
    assert without_thought(f" {MARKS} ") == MARKS
