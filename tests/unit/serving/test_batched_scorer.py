"""Calls of a judge that come together are one batch; each gets its own scores or its own error."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from careedit.scoring import JudgeIdentity, Score, ScoreRequest
from careedit_deployments.batched import Batched
from careedit_deployments.scorer.pool import MAX_BATCH

JUDGE = JudgeIdentity(backend="test", model="by-red", revision="1", prompts="none-1")


class ByRed:
    """Scores by the red of a picture's corner; holds its first answer back until it is told to go on."""

    def __init__(self):
        self.go, self.began, self.sizes = threading.Event(), threading.Event(), []

    def score(self, requests):
        self.sizes.append(len(requests))
        self.began.set()
        assert self.go.wait(10)
        reds = [request.edited.getpixel((0, 0))[0] / 255 for request in requests]
        if any(red == 1 for red in reds):
            raise ValueError("too red")
        return [Score(followed=red, preserved=1.0, clean=1.0, overall=red, judge=JUDGE) for red in reds]


def asked(*reds):
    grey = Image.new("RGB", (4, 4))
    return [
        ScoreRequest(source=grey, edited=Image.new("RGB", (4, 4), (red, 0, 0)), instruction="redder") for red in reds
    ]


@pytest.fixture
def judge():
    """`judge(*calls)`: the first call is at work when the others come; their answers, and the sizes of the batches."""

    def run(*calls, give_up=()):
        scorer = ByRed()

        async def use():
            with ThreadPoolExecutor(1) as workers:
                batched = Batched(scorer.score, workers, max_batch=MAX_BATCH)
                tasks = [asyncio.create_task(batched.ask(calls[0]))]
                await asyncio.to_thread(scorer.began.wait, 10)
                tasks += [asyncio.create_task(batched.ask(call)) for call in calls[1:]]
                await asyncio.sleep(0)
                for index in give_up:
                    tasks[index].cancel()
                await asyncio.sleep(0)
                scorer.go.set()
                return await asyncio.gather(*tasks, return_exceptions=True)

        return asyncio.run(use()), scorer.sizes

    return run


def overall(scores):
    return [round(255 * score.overall) for score in scores]


def test_what_comes_while_the_judge_is_busy_is_one_batch_and_everybody_gets_their_own(judge):
    answers, sizes = judge(asked(10), asked(20, 30), asked(40), asked(50, 60))
    assert [overall(scores) for scores in answers] == [[10], [20, 30], [40], [50, 60]]
    assert sizes == [1, 5]


def test_a_batch_is_bounded(judge):
    answers, sizes = judge(asked(1), asked(*[2] * MAX_BATCH), asked(3), asked(4))
    assert [len(scores) for scores in answers] == [1, MAX_BATCH, 1, 1]
    assert sizes == [1, MAX_BATCH, 2]


def test_one_calls_failure_is_not_its_neighbours(judge):
    (first, second, third), sizes = judge(asked(10), asked(20), asked(255))
    assert overall(first) == [10] and overall(second) == [20]
    assert isinstance(third, ValueError) and sizes == [1, 2, 1, 1]


def test_a_call_that_was_given_up_is_not_judged(judge):
    (first, second, third), sizes = judge(asked(10), asked(20), asked(30), give_up=[1])
    assert overall(first) == [10] and overall(third) == [30]
    assert isinstance(second, asyncio.CancelledError) and sizes == [1, 1]
