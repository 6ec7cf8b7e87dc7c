"""Samples of the tiny world: functions of (kind, split, index), with words, truth and masks that fit together."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from careedit_tiny import (
    EXPERT_OF,
    KINDS,
    OPERATIONS,
    SPLITS,
    changed_region,
    draw_chain,
    draw_sample,
    draw_samples,
    draw_scene,
    sample_from_dict,
    scene_from_dict,
)
from careedit_tiny.world.draw import silhouette
from careedit_tiny.world.phrases import PHRASES, phrasings
from careedit_tiny.world.scene import LOOKS

EVERY = (*OPERATIONS, "infeasible")
COUNT = 25


@pytest.fixture(scope="module")
def drawn():
    return {name: [draw_sample(name, index, "test") for index in range(COUNT)] for name in EVERY}


def test_the_world_covers_every_kind_of_edit_and_at_least_six_looks():
    assert set(KINDS) == {
        "add", "remove", "replace", "action", "counting", "relation",
        "attribute", "background", "style", "identity", "reference", "masked",
    }  # fmt: skip
    assert len(set(LOOKS)) >= 6
    assert set(EXPERT_OF) == set(OPERATIONS)
    assert set(EXPERT_OF.values()) == {"erase", "compose", "style", "identity", "reference"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_at_least_twenty_phrasings_and_a_third_of_each_operations_is_held_out(kind):
    operations = [name for name in OPERATIONS if name.split(".")[0] == kind]
    assert sum(len(set(PHRASES[name])) for name in operations) >= 20
    for name in operations:
        seen, held_out = set(phrasings(name, "seen")), set(phrasings(name, "held_out"))
        assert len(PHRASES[name]) == len(set(PHRASES[name])) == 3 * len(held_out)
        assert not seen & held_out and seen | held_out == set(PHRASES[name])


@pytest.mark.parametrize("name", EVERY)
def test_a_sample_is_a_function_of_kind_split_and_index(name, drawn):
    assert drawn[name] == [draw_sample(name, index, "test") for index in range(COUNT)]
    again = draw_sample(name, 0, "test")
    assert again.source_image().tobytes() == drawn[name][0].source_image().tobytes()
    assert len({json.dumps(sample.source.to_dict()) for sample in drawn[name]}) == COUNT


def test_splits_lie_in_disjoint_ranges_of_seeds():
    ranges = sorted(SPLITS.values(), key=lambda seeds: seeds.start)
    assert all(first.stop <= second.start for first, second in pairwise(ranges))
    for split, seeds in SPLITS.items():
        assert int(draw_sample("add", 5, split).id.removeprefix("add-")) in seeds
    with pytest.raises(IndexError):
        draw_sample("add", len(SPLITS["test"]), "test")


def test_training_never_uses_a_held_out_phrasing_and_testing_uses_both(drawn):
    trained = [draw_sample(kind, index, "train") for kind in (*KINDS, "infeasible") for index in range(20)]
    assert not any(sample.held_out_phrasing for sample in trained)
    tested = Counter(sample.held_out_phrasing for samples in drawn.values() for sample in samples)
    assert 0.4 < tested[True] / tested.total() < 0.6


def test_every_slot_of_an_instruction_is_filled(drawn):
    words = [sample.instruction for samples in drawn.values() for sample in samples]
    assert not [text for text in words if "{" in text or "}" in text or "  " in text or text != text.strip()]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_edit_shows(name, drawn):
    for sample in drawn[name]:
        region = changed_region(sample.source_image(), sample.target_image())
        assert region.histogram()[255] >= 8, sample


def test_a_mask_covers_what_the_edit_changes_with_little_to_spare(drawn):
    for name in (name for name in OPERATIONS if name.startswith("masked.")):
        for sample in drawn[name]:
            mask = np.asarray(sample.mask_image()) > 0
            changed = np.asarray(changed_region(sample.source_image(), sample.target_image(), threshold=0)) > 0
            assert not (changed & ~mask).any(), sample.id
            marked = [t for t in (*sample.source.things, *sample.target.things)
                      if (t in sample.source.things) != (t in sample.target.things)]  # fmt: skip
            box = silhouette(max(marked, key=lambda t: silhouette(t).histogram()[255])).getbbox()
            assert mask.sum() <= (box[2] - box[0] + 12) * (box[3] - box[1] + 12)


def test_only_masked_edits_have_a_mask_and_only_reference_edits_a_reference(drawn):
    for name, samples in drawn.items():
        for sample in samples:
            assert (sample.mask_image() is not None) == name.startswith("masked.")
            assert (sample.reference_image(32) is not None) == name.startswith("reference.")


def test_samples_and_scenes_survive_json(drawn):
    for samples in drawn.values():
        for sample in samples[:5]:
            assert sample_from_dict(json.loads(json.dumps(sample.to_dict()))) == sample
    with pytest.raises(KeyError, match="colour"):
        scene_from_dict({"background": "gray", "things": [], "colour": "red"})


def test_an_infeasible_instruction_names_an_object_that_is_not_there_and_its_truth_is_the_source(drawn):
    for sample in drawn["infeasible"]:
        assert sample.target == sample.source and not sample.feasible and sample.expert == "base"
        assert not [thing.name for thing in sample.source.things if f"the {thing.name}" in sample.instruction]
        assert "the " in sample.instruction


def test_a_kept_object_is_the_sources_own_to_the_last_pixel(drawn):
    for sample in drawn["identity.look"]:
        kept = np.asarray(silhouette(sample.target.things[sample.target.keep])) > 0
        before, after = np.asarray(sample.source_image()), np.asarray(sample.target_image())
        assert np.array_equal(before[kept], after[kept])


@pytest.mark.parametrize("index", range(12))
def test_each_turn_of_a_chain_starts_where_the_one_before_ended(index):
    chain = draw_chain(index, "test")
    assert len(chain) == 3 and len({turn.id for turn in chain}) == 3
    for earlier, later in pairwise(chain):
        assert later.source == earlier.target
    assert all(turn.source != turn.target for turn in chain)
    assert chain == draw_chain(index, "test")


def test_draw_samples_takes_the_kinds_in_turn():
    samples = list(draw_samples(5, "validation", kinds=("add", "remove"), first=7))
    assert [sample.kind for sample in samples] == ["add", "remove", "add", "remove", "add"]
    assert samples[2] == draw_sample("add", 8, "validation")


def test_an_unknown_kind_is_a_key_error():
    with pytest.raises(KeyError):
        draw_sample("paint", 0)


@pytest.mark.parametrize("size", [32, 96, 130])
def test_a_scene_can_be_drawn_at_any_size(size, drawn):
    sample = drawn["identity.look"][0]
    assert sample.target_image(size).size == (size, size)
    shrunk = np.asarray(draw_scene(sample.source, 128).resize((64, 64), 4), float)
    assert np.abs(shrunk - np.asarray(draw_scene(sample.source, 64), float)).mean() < 4
