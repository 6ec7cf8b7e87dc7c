"""`careedit eval filter` on the packaged set: what is looked up is what the editor does."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from careedit.editor import load_editor
from careedit.records import EarlyFilter
from careedit.scoring import JudgeIdentity, Score
from careedit.selection.judge import Judge
from careedit_tiny.evaluation.common import Cache
from careedit_tiny.evaluation.filter import FilterBench, FilterPlan, SceneTable, measure_filter
from careedit_tiny.evaluation.filter.page import write_filter_page
from careedit_tiny.models.clip import untrained_encoder
from careedit_tiny.oracle.verdict import judge as verdict_on
from careedit_tiny.world.samples import request_for

IDENTITY = JudgeIdentity(backend="test", model="brightness", revision="1", prompts="none-1")


class Brightness:
    """A judge that likes light pictures: a smooth taste, so that the last bit of a pixel decides nothing."""

    identity = IDENTITY

    def score(self, requests):
        values = [float(np.asarray(request.edited, np.float64).mean()) / 255 for request in requests]
        return [Score(followed=v, preserved=1.0, clean=1.0, overall=v, judge=IDENTITY) for v in values]


@pytest.fixture(scope="module")
def editor():
    return load_editor("tiny", device="cpu")


@pytest.fixture(scope="module")
def bench(editor):
    plan = FilterPlan(steps=6, n=2, candidates=(1, 3), preview_steps=(3,))
    return FilterBench(editor, plan, judge=Brightness(), encoder=untrained_encoder(), encoder_name="untrained")


@pytest.fixture(scope="module")
def table(bench):
    return bench.measure(bench.plan.samples[0])


def test_the_choice_that_is_looked_up_is_the_one_that_the_editor_makes(bench, table, editor):
    sample = bench.plan.samples[0]
    editor.judge = Judge(Brightness())
    try:
        for setting in bench.plan.settings:
            wanted = EarlyFilter(
                strategy=setting.strategy, candidates=setting.candidates, preview_steps=setting.preview_steps
            )
            request = request_for(sample, seed=bench.plan.noise(sample)).model_copy(
                update={"steps": bench.plan.steps, "early_filter": wanted}
            )
            result = editor.edit(request)
            looked_up = table.race(setting, "judge")
            assert result.trace.filter.chosen == looked_up.chosen
            assert result.trace.filter.looks == looked_up.looks
            assert result.trace.nfe == table.rows * setting.cost
            assert verdict_on(sample, result.image).compliant == table.right[looked_up.chosen]
    finally:
        editor.judge = None


def test_a_noise_is_denoised_once_per_schedule_in_one_batch(bench, editor, monkeypatch):
    seen = Counter()
    velocity = editor.engine.applier.velocity

    def counted(names, inputs):
        seen[len(names)] += 1
        return velocity(names, inputs)

    monkeypatch.setattr(editor.engine.applier, "velocity", counted)
    made = bench.measure(bench.plan.samples[1])
    assert seen == {made.rows * 6: 6 + 3}


def test_a_run_measures_everything_and_can_be_resumed(bench, table, tmp_path, monkeypatch):
    kept = Cache(SceneTable, tmp_path / "kept")
    again = FilterBench(bench.editor, bench.plan, bench.judge, bench.encoder, bench.encoder_name, kept)
    document = measure_filter(again)
    assert document.keys() >= {
        "rows",
        "judge",
        "lift_over_single",
        "gap_recovered",
        "nfe_share_at_equal_compliance",
        "goals",
        "environment",
    }
    assert document["judge"].keys() >= {"auc_final", "auc_preview", "order_consistency", "ece"}
    assert document["rows"][0].keys() >= {
        "strategy",
        "candidates",
        "preview_steps",
        "chooser",
        "nfe",
        "compliance",
        "ci",
    }
    assert {row["chooser"] for row in document["rows"]} == {
        "none",
        "random",
        "clip",
        "clip_caption",
        "judge",
        "oracle_preview",
        "oracle",
    }
    json.dumps(document, allow_nan=False)
    write_filter_page(tmp_path / "page.html", document)

    monkeypatch.setattr(FilterBench, "measure", lambda *_: pytest.fail("measured again"))
    repeated = measure_filter(
        FilterBench(
            bench.editor,
            bench.plan,
            bench.judge,
            bench.encoder,
            bench.encoder_name,
            Cache(SceneTable, tmp_path / "kept"),
        )
    )
    assert repeated["rows"] == document["rows"]
