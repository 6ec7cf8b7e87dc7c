"""`bench_scorer`: batches against single pairs, on an untrained judge."""

from types import SimpleNamespace

import pytest

from careedit.bench.scorer import bench_scorer, pairs_of
from careedit.errors import InputError
from careedit.scoring import VqaScorer
from careedit.scoring.vlm import TransformersAsker
from careedit_tiny.models.judge import build_judge


@pytest.fixture(scope="module")
def scorer():
    return VqaScorer(TransformersAsker(*build_judge(["remove the red circle"]), name="untrained", revision="0"))


def test_the_document_tells_speeds_and_their_ratio(scorer):
    done = []
    document = bench_scorer(scorer, pairs=2, repeats=1, done=lambda: done.append(1))
    assert len(done) == 2 and set(document["pairs_per_second"]) == {"1", "16"}
    times = document["seconds"]
    assert document["speedup"] == pytest.approx(times["1"][0] / times["16"][0])
    assert document["pairs_per_second"]["1"] == pytest.approx(2 / times["1"][0])
    assert document["environment"]["model"] == "untrained"
    assert scorer.asker.batch == 8  # as it was


def test_the_pairs_are_test_edits_of_all_kinds():
    pairs = pairs_of(13, 64)
    assert len({pair.instruction for pair in pairs}) > 10
    assert all(pair.source.size == (64, 64) for pair in pairs)


@pytest.mark.parametrize("options", [{"pairs": 0}, {"repeats": 0}])
def test_nothing_cannot_be_measured(scorer, options):
    with pytest.raises(InputError, match="at least 1"):
        bench_scorer(scorer, **options)


def test_an_endpoint_is_refused():
    asker = SimpleNamespace(backend="openai", model="m", revision="1")
    with pytest.raises(InputError, match="measure a local model"):
        bench_scorer(VqaScorer(asker))
