"""The judge's training: prompts as the processor's, labels by the oracle, a pool on disk, and steps that go on."""

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from careedit.finetune.stored import load_record
from careedit.scoring import Question, VqaScorer
from careedit.scoring.pairwise import BETTER
from careedit.scoring.vlm import TransformersAsker
from careedit.scoring.vqa import CLEAN, FOLLOWED, LEAD, LEAD_REFERENCE, PRESERVED
from careedit_tiny.models.judge import build_judge
from careedit_tiny.recipes.judge import data as judge_data
from careedit_tiny.recipes.judge.artefacts import ARTEFACTS
from careedit_tiny.recipes.judge.data import UNKNOWN, JudgePool, differing, drawn_pool, drawn_views, pool_of
from careedit_tiny.recipes.judge.edits import TAKES, edited_views
from careedit_tiny.recipes.judge.prompts import Patches, Prompts, pack
from careedit_tiny.recipes.judge.report import card_of, measure
from careedit_tiny.recipes.judge.train import DEFAULT, _better, make_batch, read, train_judge
from careedit_tiny.world.samples import draw_sample

CORPUS = ("remove the red circle", "make the blue star green")


@pytest.fixture(scope="module")
def asker():
    return TransformersAsker(*build_judge(CORPUS), name="untrained", revision="0", batch=64)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return drawn_pool(tmp_path_factory.mktemp("pool"), "train", 12)


@pytest.fixture(scope="module")
def pictures():
    return [draw_sample("replace", i).source_image() for i in range(4)]


def asked(pictures):
    """(lead, pictures by index, text) of four questions, one with a strange instruction and one with nothing ahead."""
    lead = LEAD.format(instruction="remove the red circle")
    return [
        (lead, (0, 1), FOLLOWED),
        (LEAD_REFERENCE.format(instruction="say <|im_end|> <|image_pad|>"), (3, 0, 1), PRESERVED),
        ("", (0, 1), CLEAN),
        (lead, (0, 1, 2), BETTER),
    ]


def test_prompts_and_pictures_are_the_processors_own(asker, pictures):
    prompts, patches = Prompts(asker.processor), Patches(asker.processor)
    picture = asker.network.config.image_token_id
    for lead, seen, text in asked(pictures):
        inputs = asker.encode([Question(lead=lead, images=tuple(pictures[i] for i in seen), text=text)])
        codes = prompts.codes(lead, seen, text)
        assert [picture if code < 0 else code for code in codes] == inputs["input_ids"][0].tolist()
        own = patches(torch.from_numpy(np.stack([np.asarray(pictures[i]) for i in seen])))
        assert torch.allclose(own, inputs["pixel_values"], atol=1e-6)
        assert torch.equal(patches.grid(len(seen)), inputs["image_grid_thw"])


def test_packed_questions_are_answered_as_each_alone(asker, pictures):
    prompts, patches = Prompts(asker.processor), Patches(asker.processor)
    questions = asked(pictures)
    codes = [prompts.codes(*question) for question in questions]
    packed = pack([codes, [codes[2], None, codes[1], codes[3]]])
    pixels = patches(torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])))
    with torch.inference_mode():
        _, _, states = read(asker.network, packed, pixels, patches.grid(4))
        ends = states[torch.arange(2)[:, None], packed.ends]
        shares = asker.answer_logits(asker.network.lm_head(ends.flatten(0, 1))).softmax(dim=1)[:, 1].view(2, 4)
    alone = [
        answer.yes
        for answer in asker.ask(
            [Question(lead=lead, images=tuple(pictures[i] for i in seen), text=text) for lead, seen, text in questions]
        )
    ]
    assert shares[0].tolist() == pytest.approx(alone, abs=1e-5)
    assert shares[1, [0, 2, 3]].tolist() == pytest.approx([alone[i] for i in (2, 1, 3)], abs=1e-5)


def test_what_questions_about_one_edit_share_is_read_once(asker):
    prompts, lead = Prompts(asker.processor), LEAD.format(instruction="remove the red circle")
    codes = [prompts.codes(lead, (0, 1), text) for text in (FOLLOWED, PRESERVED, CLEAN)]
    packed = pack([codes])
    assert packed.codes.shape[1] < 0.6 * sum(map(len, codes))


def test_labels_are_the_oracles(pool):
    right = [i for i, sort in enumerate(pool.sorts) if sort == "truth"]
    assert right and all(pool.labels[i].tolist() == [1, 1, 1] for i in right)
    undone = [i for i, sort in enumerate(pool.sorts) if sort.startswith("source")]
    assert all(pool.labels[i, 0] == 0 for i in undone)
    spoilt = [i for i, sort in enumerate(pool.sorts) if sort in ARTEFACTS]
    assert spoilt and all(pool.labels[i, 2] == 0 for i in spoilt)
    assert 0.15 < float((pool.labels[:, :2] == 1).all(dim=1).float().mean()) < 0.85


def test_maps_say_where_a_change_is_wanted_and_where_the_edit_is_wrong(pool):
    for i, sort in enumerate(pool.sorts):
        if sort == "truth":
            assert not pool.maps[i, 1].any()
        if sort.startswith("source"):
            assert torch.equal(pool.maps[i, 0], pool.maps[i, 1])


def test_a_pool_is_made_once_and_read_back(tmp_path, monkeypatch):
    first = drawn_pool(tmp_path, "validation", 3)
    monkeypatch.setattr(judge_data, "pool_of", None)
    again = drawn_pool(tmp_path, "validation", 3)
    assert torch.equal(first.pictures, again.pictures) and torch.equal(first.labels, again.labels)
    assert (first.instructions, first.sorts) == (again.instructions, again.sorts)
    assert load_record(JudgePool, next(tmp_path.iterdir()), "of something else") is None


def test_pools_add_up(pool):
    both = pool.plus(pool)
    source, edited, _ = both.rows[len(pool)].tolist()
    assert len(both) == 2 * len(pool)
    assert both.image(source).tobytes() == pool.image(pool.rows[0, 0]).tobytes()
    assert both.image(edited).tobytes() == pool.image(pool.rows[0, 1]).tobytes()


@pytest.mark.parametrize("name", ARTEFACTS)
def test_an_artefact_shows_and_is_the_same_again(name):
    image = draw_sample("add", 1).target_image()
    spoilt = ARTEFACTS[name](image, Random(1))
    assert (spoilt.size, spoilt.mode) == (image.size, "RGB")
    assert spoilt.tobytes() == ARTEFACTS[name](image, Random(1)).tobytes()
    assert np.abs(np.asarray(spoilt, np.float32) - np.asarray(image, np.float32)).mean() > 1


def test_views_of_a_sample_are_right_and_wrong():
    views = [*drawn_views(draw_sample("replace", 5), Random(0))]
    assert views[0].verdict.compliant
    assert any(not view.verdict.compliant for view in views[1:])


def test_the_token_that_differs_is_found():
    image = draw_sample("add", 1).source_image()
    other = image.copy()
    other.paste((255, 255, 255) if sum(image.getpixel((40, 20))) < 380 else (0, 0, 0), (32, 16, 48, 32))
    assert differing(image, other).nonzero()[0].tolist() == [6]


def test_a_batch_compares_in_both_orders(pool, asker, monkeypatch):
    monkeypatch.setattr("careedit_tiny.recipes.judge.train.COMPARED", 1.0)
    pair = next((0, j) for j in range(1, len(pool)) if pool.rows[j, 0] == pool.rows[0, 0] and _better(pool, 0, j) == 1)
    batch = make_batch(pool, [pair], Prompts(asker.processor), Random(0))
    assert batch.answers[:, 3].tolist() == [0, 1]
    assert batch.answers[:, :3].tolist() == pool.labels[list(pair)].tolist()
    assert pool.image(batch.pictures[batch.shown[1, 1]]).tobytes() == pool.image(pool.rows[pair[1], 1]).tobytes()
    assert _better(pool, 0, 0) == UNKNOWN


def test_training_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("careedit_tiny.recipes.judge.train.PAIRS", 2)
    monkeypatch.setattr("careedit_tiny.recipes.judge.train.EYES_BATCH", 2)
    config = replace(DEFAULT, steps=2, warmup=1)
    asker, report = train_judge(tmp_path, config, samples=3, corpus=CORPUS)
    again, _ = train_judge(tmp_path, config, samples=3, corpus=CORPUS)  # from the checkpoint: no step is left
    fresh = build_judge(CORPUS)[0].state_dict()
    state = asker.network.state_dict()
    assert math.isfinite(report.curve[-1][1])
    assert any(not torch.equal(state[name], value) for name, value in fresh.items())
    assert all(torch.equal(state[name], value) for name, value in again.network.state_dict().items())


def test_an_editors_previews_and_results_are_shown(open_editor):
    shown = edited_views(open_editor(), [draw_sample("remove", 0), draw_sample("masked", 0)], steps=4)
    for sample, views in shown:
        assert [view.sort for view in views] == ["preview 1", "preview 2", "finished"] * TAKES
        assert views[2].image.tobytes() != views[5].image.tobytes()  # another noise
        assert views[0].verdict == views[2].verdict and views[0].outcome == views[2].image
        assert views[2].clean is (True if views[2].verdict.compliant else None)
        assert views[0].image.size == sample.source_image().size
    pool = pool_of(shown)
    assert len(pool) == 6 * TAKES and pool.kinds == ("remove",) * 3 * TAKES + ("masked",) * 3 * TAKES


def test_a_judge_is_measured_and_its_card_says_so(asker, pool):
    kept = {
        name: getattr(pool, name)[:8] for name in ("rows", "labels", "wanted", "maps", "instructions", "kinds", "sorts")
    }
    quality = measure(VqaScorer(asker), replace(pool, **kept), pairs=3)
    assert quality.count == 8 and quality.errors == 0
    assert 0 <= quality.auc <= 1 and 0 <= quality.ece <= 1 and 0 <= quality.order_consistency <= 1
    assert set(quality.accuracy) == {"followed", "preserved", "clean", "overall"}
    card = card_of({"drawn": quality}, 12, 0, asker)
    assert f"{quality.auc:.3f}" in card.quality["AUC of the overall score (drawn edits, 8 of the test split)"]
