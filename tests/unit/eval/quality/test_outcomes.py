"""Outcomes: what is judged, what is kept, and what their keys depend on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from careedit.errors import InputError
from careedit_tiny.evaluation.quality.outcomes import Outcome, judge_outcome, outcome_key
from careedit_tiny.world.samples import draw_sample

OUTCOME = Outcome(True, False, 0.01, 0.005, 0.02, nfe=8, seconds=0.5)


def test_the_truth_is_right_and_without_error() -> None:
    sample = draw_sample("remove", 0, "test")

    made = judge_outcome(sample, sample.target_image(), nfe=8)

    assert made.compliant
    assert (made.preservation_error, made.l1, made.nfe) == (0.0, 0.0, 8)


def test_the_error_outside_leaves_the_edit_itself_out() -> None:
    sample = draw_sample("remove", 0, "test")
    pixels = np.asarray(sample.source_image(), int)

    untouched = judge_outcome(sample, sample.source_image())
    brighter = judge_outcome(sample, Image.fromarray(np.clip(pixels + 5, 0, 255).astype(np.uint8)))

    assert (untouched.followed, untouched.preservation_error) == (False, 0.0)
    assert untouched.l1 > 0
    assert brighter.preservation_error == pytest.approx(5 / 255, abs=1e-3)


def test_a_kept_picture_comes_back_as_it_was() -> None:
    sample = draw_sample("add", 0, "test")

    made = judge_outcome(sample, sample.target_image(), keep=True)

    assert made.image.tobytes() == sample.target_image().tobytes()
    with pytest.raises(InputError, match="without keeping"):
        _ = OUTCOME.image


def test_keys_tell_scenes_words_weights_and_noise_apart() -> None:
    first, second = draw_sample("add", 0, "test"), draw_sample("add", 1, "test")
    keys = {
        outcome_key(first, {"steps": 8}, noise=0, source_sha256=None),
        outcome_key(second, {"steps": 8}, noise=0, source_sha256=None),
        outcome_key(first, {"steps": 4}, noise=0, source_sha256=None),
        outcome_key(first, {"steps": 8}, noise=1, source_sha256=None),
        outcome_key(first, {"steps": 8}, noise=0, source_sha256="ab"),
    }

    assert len(keys) == 5
    assert outcome_key(first, {"steps": 8}, noise=0, source_sha256=None) in keys
