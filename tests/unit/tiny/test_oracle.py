"""The oracle: truths and harmless flaws pass, known faults do not (hundreds of each: tests/integration/tiny)."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from PIL import Image

from careedit.errors import InputError
from careedit_tiny import Verdict, draw_chain, draw_sample, judge
from careedit_tiny.oracle.calibration import PICTURES, calibrate, expectation, pictures
from careedit_tiny.oracle.compare import Thresholds
from careedit_tiny.oracle.corruptions import FAULTS, FLAWS, make_picture
from careedit_tiny.oracle.rivals import cell_window, rivals, slips
from careedit_tiny.world.scene import Thing

EACH = 16


@pytest.fixture(scope="module")
def rows():
    return {row.picture: row for row in calibrate(EACH)}


def test_the_truth_always_passes(rows):
    assert rows["truth"].passed == 1


@pytest.mark.parametrize("picture", [name for name in FLAWS if name != "truth"])
def test_a_right_edit_with_a_harmless_flaw_passes(rows, picture):
    assert rows[picture].n == EACH
    assert rows[picture].passed >= 0.9


@pytest.mark.parametrize("fault", FAULTS)
def test_a_picture_with_a_fault_is_rejected(rows, fault):
    assert rows[fault].right >= 0.9


def test_a_source_is_preserved_and_not_followed(rows):
    assert rows["source (nothing done)"].followed == 0
    assert rows["source (nothing done)"].preserved == 1


def test_a_lost_object_is_a_matter_of_preservation(rows):
    assert rows["another object lost"].followed >= 0.7
    assert rows["another object lost"].preserved <= 0.1


def test_the_calibration_covers_every_picture_once(rows):
    assert tuple(rows) == PICTURES
    assert {expectation(name) for name in PICTURES} == {"pass", "reject", "either"}
    assert rows["whole picture 1 px off"].right is None


def test_a_calibration_is_repeatable():
    first, second = (list(pictures("noise 3 %", 3)) for _ in range(2))
    assert [image.tobytes() for _, image in first] == [image.tobytes() for _, image in second]


@pytest.mark.parametrize(
    "pair", [("circle", "square"), ("square", "circle"), ("star", "circle"), ("heart", "triangle")]
)
@pytest.mark.parametrize("size", ["small", "large"])
def test_a_wrong_shape_of_the_right_colour_in_the_right_place_fails(pair, size):
    sample = draw_sample("add.thing", 3, "validation")
    thing = Thing(pair[0], "red", sample.target.things[-1].cell, size)
    scene = type(sample.target)("gray", things=(thing,))
    sample = replace(sample, source=scene.without(0), target=scene)
    wrong = replace(sample, target=scene.with_thing(0, shape=pair[1]))
    verdict = judge(sample, wrong.target_image())
    assert not verdict.followed and judge(sample, sample.target_image()).compliant


def test_a_moved_object_must_be_gone_at_the_old_place_and_there_at_the_new_one():
    sample = draw_sample("relation.move", 1, "validation")
    old = next(thing for thing in sample.source.things if thing not in sample.target.things)
    doubled = replace(sample, target=sample.target.plus(old)).target_image()
    (new,) = [i for i, thing in enumerate(sample.target.things) if thing not in sample.source.things]
    vanished = replace(sample, target=sample.target.without(new)).target_image()
    assert not judge(sample, doubled).followed
    assert not judge(sample, vanished).followed


def test_an_infeasible_instruction_is_followed_by_leaving_the_picture_alone():
    sample = draw_sample("infeasible", 2, "validation")
    assert judge(sample, sample.source_image()).compliant
    lost = replace(sample, target=sample.source.without(0)).target_image()
    verdict = judge(sample, lost)
    assert not verdict.followed and not verdict.preserved


def test_an_identity_edit_reports_the_drift_of_the_kept_object():
    spoiled = 0
    for index in range(6):
        sample = draw_sample("identity", index, "validation")
        assert judge(sample, sample.target_image()).kept_drift == 0
        image = make_picture("kept object edited", sample, Random(0))
        if image is not None:
            verdict = judge(sample, image)
            assert verdict.kept_drift > 0.01 and not verdict.compliant
            spoiled += 1
    assert spoiled >= 3
    assert judge(draw_sample("add", 0), draw_sample("add", 0).target_image()).kept_drift is None


def test_each_turn_of_a_chain_is_judged_against_its_own_truth():
    chain = draw_chain(4, "validation")
    for turn in chain:
        assert judge(turn, turn.target_image()).compliant
    assert not judge(chain[2], chain[0].target_image()).followed


@pytest.mark.parametrize("size", [48, 128])
def test_a_picture_is_judged_at_its_own_size(size):
    for kind in ("add", "attribute", "identity", "background"):
        sample = draw_sample(kind, 1, "validation")
        assert judge(sample, sample.target_image(size)).compliant
        assert not judge(sample, sample.source_image(size)).followed


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.new("RGB", (64, 48)), "64x48 cannot be judged"),
        (Image.new("RGB", (16, 16)), "sides of 32 to 1024"),
        (Image.new("RGB", (1025, 1025)), "sides of 32 to 1024"),
        (Image.new("L", (64, 64)), "mode L"),
    ],
)
def test_a_picture_that_cannot_be_judged_is_refused_by_a_sentence(image, words):
    with pytest.raises(InputError, match=words):
        judge(draw_sample("add", 0), image)


def test_stricter_thresholds_reject_more():
    sample, image = next(iter(pictures("noise 3 %", 1)))
    assert judge(sample, image).compliant
    assert not judge(sample, image, thresholds=Thresholds(block=0.001)).preserved


def test_a_verdict_says_why():
    sample = draw_sample("attribute.colour", 0, "validation")
    assert judge(sample, sample.target_image()).reason == "The instruction was followed and the rest preserved."
    assert "source" in judge(sample, sample.source_image()).reason
    black = judge(sample, Image.new("RGB", (64, 64)))
    assert "not followed" in black.reason and "not preserved" in black.reason


def test_a_verdict_is_compliant_only_if_followed_and_preserved():
    figures = (0.0, 0.0, 0.0, "source", 0.0, 0.0, 0.0)
    compliant = {(f, p): Verdict(f, p, *figures).compliant for f in (True, False) for p in (True, False)}
    assert [key for key, value in compliant.items() if value] == [(True, True)]


def test_the_cells_tile_the_picture():
    cover = np.zeros((65, 65))
    for cell in range(9):
        cover[cell_window(cell, 65)] += 1
    assert (cover == 1).all()


def test_a_slip_changes_one_property():
    thing = Thing("arrow", "red", 4, pose="left")
    changed = [{n for n in ("shape", "colour", "size", "texture", "pose") if getattr(thing, n) != getattr(slip, n)}
               for _, slip in slips(thing)]  # fmt: skip
    assert len(changed) == 9 + 7 + 2 + 2 + 3
    assert all(len(names) == 1 or names == {"shape", "pose"} for names in changed)


@pytest.mark.parametrize(
    ("operation", "name"), [("add", "size large"), ("style", "look "), ("background", "background ")]
)
def test_rivals_are_about_what_the_edit_changes(operation, name):
    sample = draw_sample(operation, 2, "validation")
    names = [rival.name for rival in rivals(sample.source, sample.target, 64)]
    assert len(set(names)) == len(names) >= 10
    assert any(rival.startswith(name.split()[0]) for rival in names)
