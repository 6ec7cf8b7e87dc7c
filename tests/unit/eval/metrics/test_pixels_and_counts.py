"""Distances of pixels, what editors report of themselves, and the oracle."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from PIL import Image
from torch import nn
from torchvision import transforms

from careedit.errors import InputError
from careedit_eval.metrics import load_metric, measure_image
from careedit_eval.records import Metric, lacking
from careedit_tiny import draw_sample


def value(metric, item):
    (found,) = metric.score([item])
    assert found.error is None, found.error
    return found.values[metric.spec.name]


@pytest.mark.parametrize(("name", "loss"), [("l1", nn.L1Loss()), ("l2", nn.MSELoss())])
def test_a_distance_is_what_magicbrushs_script_gives(make_item, draw_picture, name, loss):
    edited, target = draw_picture((80, 60), 3), draw_picture((64, 64), 5)
    resized = edited.resize(target.size)
    by_hand = loss(transforms.ToTensor()(resized), transforms.ToTensor()(target)).item()
    assert value(load_metric(name), make_item(target, edited, target=target)) == pytest.approx(by_hand, abs=1e-6)


def test_an_identical_pair_is_zero_and_black_on_white_is_one(make_item, draw_picture):
    picture, black, white = draw_picture(), Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "white")
    for name in ("l1", "l2"):
        assert value(load_metric(name), make_item(picture, picture, target=picture)) == 0
        assert value(load_metric(name), make_item(black, black, target=white)) == 1
    half = Image.new("RGB", (8, 8), (51, 51, 51))
    assert value(load_metric("l2"), make_item(black, half, target=black)) == pytest.approx(0.04)  # 0.2 squared, no root
    assert value(load_metric("l1"), make_item(black, half, target=black)) == pytest.approx(0.2)


def test_inverted_colours_are_far(make_item, draw_picture, inverted):
    picture = draw_picture()
    expected = np.abs(np.asarray(picture, float) - np.asarray(inverted(picture), float)).mean() / 255
    assert value(load_metric("l1"), make_item(picture, inverted(picture), target=picture)) == pytest.approx(expected)


def test_against_the_source_the_identity_is_zero(make_item, draw_picture):
    item = make_item(draw_picture(), draw_picture(), target=draw_picture(seed=4))
    assert value(load_metric("l1", against="source"), item) == 0
    assert value(load_metric("l1"), item) > 0.01


def test_preservation_looks_outside_the_mask_only(make_item, draw_picture, draw_mask):
    source, mask = draw_picture(), draw_mask()
    inside, outside = source.copy(), source.copy()
    inside.paste((0, 255, 0), (10, 10, 30, 30))
    outside.paste((0, 255, 0), (40, 40, 60, 60))
    metric = load_metric("preservation")
    assert value(metric, make_item(source, inside, mask=mask)) == 0
    keep = np.asarray(mask) == 0
    by_hand = np.abs(np.asarray(outside, float) - np.asarray(source, float))[keep].mean() / 255
    assert value(metric, make_item(source, outside, mask=mask)) == pytest.approx(by_hand)


def test_a_mask_over_everything_leaves_nothing_to_measure(make_item, draw_picture):
    item = make_item(draw_picture(), draw_picture(), mask=Image.new("L", (64, 64), 255))
    (found,) = load_metric("preservation").score([item])
    assert found.error is None and "nothing outside" in found.not_applicable


def test_a_mask_of_another_size_is_an_error_of_that_row(make_item, draw_picture, draw_mask):
    bad = make_item(draw_picture(), draw_picture(), mask=draw_mask((32, 32)))
    good = make_item(draw_picture(), draw_picture(), mask=draw_mask())
    first, second = load_metric("preservation").score([bad, good])
    assert "mask is 32x32" in first.error
    assert second.values == {"preservation": 0.0}


@pytest.mark.parametrize(
    ("name", "options", "expected"), [("latency", {}, 1.5), ("nfe", {}, 28), ("cost", {"per_gpu_hour": 2.4}, 0.001)]
)
def test_what_the_editor_says_is_reported_and_silence_is_an_error(make_item, draw_picture, name, options, expected):
    metric, picture = load_metric(name, **options), draw_picture()
    said, silent = (make_item(picture, picture, edit=edit) for edit in ({"seconds": 1.5, "nfe": 28}, {}))
    assert value(metric, said) == pytest.approx(expected)
    assert "did not say" in metric.score([silent])[0].error


def test_another_price_is_another_metric():
    one, other = (load_metric("cost", per_gpu_hour=price).spec for price in (1.0, 2.0))
    assert one.key != other.key
    with pytest.raises(InputError, match="per_gpu_hour"):
        load_metric("cost", per_gpu_hour=math.nan)


def test_the_oracle_knows_the_truth_from_the_source(make_item):
    drawn = draw_sample("remove", 3, "test")
    extras = {"scene": json.dumps(drawn.to_dict())}
    metric = load_metric("oracle")
    truth = make_item(drawn.source_image(), drawn.target_image(), extras=extras)
    nothing = make_item(drawn.source_image(), drawn.source_image(), extras=extras)
    assert metric.score([truth])[0].values == {f"oracle_{w}": 1.0 for w in ("followed", "preserved", "compliant")}
    assert metric.score([nothing])[0].values == {
        "oracle_followed": 0.0,
        "oracle_preserved": 1.0,
        "oracle_compliant": 0.0,
    }


def test_the_oracle_has_no_verdict_without_a_scene_or_on_a_picture_that_is_not_square(make_item, draw_picture):
    drawn = draw_sample("remove", 3, "test")
    extras = {"scene": json.dumps(drawn.to_dict())}
    broken = make_item(draw_picture(), draw_picture(), extras={"scene": "{}"})
    wide = make_item(drawn.source_image(), draw_picture((64, 48)), extras=extras)
    first, second = load_metric("oracle").score([broken, wide])
    assert "scene" in first.error
    assert "64x48" in second.error


def test_what_a_sample_lacks_is_named_and_is_no_error(make_item, draw_picture):
    sample = make_item(draw_picture(), draw_picture(), texts={"target_caption": " "}).sample
    for name, missing in (("l1", ("target",)), ("preservation", ("mask",)), ("oracle", ("scene",)), ("nfe", ())):
        metric = load_metric(name)
        assert isinstance(metric, Metric)
        assert lacking(metric, sample) == missing


def test_an_image_that_no_run_made_is_measured_like_one_of_a_run(make_item, draw_picture):
    source, edited, target = draw_picture(), draw_picture(seed=2), draw_picture(seed=3)
    sample = make_item(source, edited, target=target).sample
    run = value(load_metric("l1"), make_item(source, edited, target=target))
    assert measure_image(load_metric("l1"), sample, edited).values == {"l1": run}
    assert "needs mask" in str(measure_image(load_metric("preservation"), sample, edited).not_applicable)
    assert "how long the edit took" in str(measure_image(load_metric("latency"), sample, edited).error)
