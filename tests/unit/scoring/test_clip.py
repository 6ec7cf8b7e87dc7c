"""CLIP similarity as a judge."""

import pytest

from careedit.scoring import ScoreRequest
from careedit.scoring.clip import ClipScorer
from careedit_tiny.models.clip import untrained_encoder


@pytest.fixture(scope="module")
def encoder():
    return untrained_encoder()


@pytest.fixture
def requests(draw_picture):
    return [ScoreRequest(source=draw_picture(), edited=draw_picture(seed=i), instruction="remove it") for i in range(3)]


def test_a_score_is_half_of_one_plus_the_cosine_and_the_rest_is_taken_for_granted(encoder, requests):
    scores = ClipScorer(encoder, model="tiny").score(requests)
    text = encoder.text_embedding("remove it")
    for score, request in zip(scores, requests, strict=True):
        cosine = float(encoder.image_embedding(request.edited) @ text)
        assert score.overall == score.followed == pytest.approx((1 + cosine) / 2, abs=1e-5)
        assert (score.preserved, score.clean, score.error) == (1.0, 1.0, None)
    assert len({score.overall for score in scores}) == 3
    assert scores[0].judge.backend == "open_clip" and scores[0].judge.model == "tiny"


def test_another_text_gives_another_score_and_no_question_none(encoder, requests):
    plain = ClipScorer(encoder, model="tiny").score(requests[:1])
    other = ClipScorer(encoder, model="tiny", text_of=lambda _: "two green stars").score(requests[:1])
    assert plain[0].overall != other[0].overall
    assert ClipScorer(encoder, model="tiny").score([]) == []
