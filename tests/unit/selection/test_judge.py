"""Asking the judge: every way in which it can fail costs the filter, and no caller waits for ever."""

from threading import Event

import pytest
from PIL import Image

from careedit.scoring import ScoreRequest
from careedit.selection.judge import Judge
from careedit.selection.plan import JudgeFailed

BLANK = Image.new("RGB", (8, 8))
REQUESTS = [ScoreRequest(source=BLANK, edited=BLANK, instruction="remove it") for _ in range(3)]


def test_scores_come_back_in_one_call(scripted):
    scorer = scripted([0.1, 0.9, None])
    scores = Judge(scorer).score(REQUESTS, timeout=60)
    assert [score.overall for score in scores] == [0.1, 0.9, None]
    assert [len(asked) for asked in scorer.asked] == [3]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (RuntimeError("out of\nmemory."), r"the judge failed \(out of memory\)"),
        (ConnectionError(), r"the judge failed \(ConnectionError\)"),
        (SystemExit(3), r"the judge failed \(3\)"),
        ([None] * 3, r"the judge gave no score \(The answer was a poem\)"),
        ([0.5], "the judge gave 1 scores for 3 previews"),
    ],
)
def test_a_judge_that_fails_is_told_in_words(answer, said, scripted):
    with pytest.raises(JudgeFailed, match=f"^{said}$"):
        Judge(scripted(answer)).score(REQUESTS, timeout=60)


def test_a_judge_that_is_late_is_given_up_and_not_asked_again_while_it_is_busy(scripted):
    release, asked = Event(), []

    class Slow(scripted):
        def score(self, requests):
            asked.append(len(requests))
            if len(asked) == 1:
                assert release.wait(60)
            return super().score(requests)

    judge = Judge(Slow([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
    with pytest.raises(JudgeFailed, match=r"longer than 0\.02 seconds"):
        judge.score(REQUESTS, timeout=0.02)
    with pytest.raises(JudgeFailed, match="still busy with an earlier edit"):
        judge.score(REQUESTS, timeout=60)
    assert asked == [3]

    release.set()
    judge._late.join(60)
    assert [score.overall for score in judge.score(REQUESTS, timeout=60)] == [0.4, 0.5, 0.6]
