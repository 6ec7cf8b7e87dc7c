"""Outcomes and their cache: what is judged, what is kept, and what a killed run leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from careedit.errors import InputError
from careedit_tiny.bench.quality.outcomes import FILE, Outcome, OutcomeCache, judge_outcome, outcome_key
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


def test_what_was_put_is_there_in_the_next_run(tmp_path: Path) -> None:
    OutcomeCache(tmp_path).put({"a": OUTCOME})
    OutcomeCache(tmp_path).put({"b": OUTCOME})

    cache = OutcomeCache(tmp_path)

    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (OUTCOME, OUTCOME, None)
    assert cache.get("a", picture=True) is None
    assert len((tmp_path / FILE).read_text().splitlines()) == 2


def test_a_line_cut_by_a_kill_costs_that_edit_only(tmp_path: Path) -> None:
    OutcomeCache(tmp_path).put({"a": OUTCOME, "b": OUTCOME})
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-20])

    cache = OutcomeCache(tmp_path)
    cache.put({"c": OUTCOME})

    again = OutcomeCache(tmp_path)
    assert (cache.unreadable, again.unreadable) == (1, 1)
    assert (again.get("a"), again.get("b"), again.get("c")) == (OUTCOME, None, OUTCOME)


@pytest.mark.parametrize("line", ["[]", "17", '{"version": 1}', '{"version": 1, "key": "a", "fast": true}', "\x00"])
def test_a_line_that_is_no_outcome_is_passed_over(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE).write_text(line + "\n")

    cache = OutcomeCache(tmp_path)

    assert (len(cache), cache.unreadable) == (0, 1)


def test_outcomes_of_another_version_are_made_again(tmp_path: Path) -> None:
    OutcomeCache(tmp_path).put({"a": OUTCOME})
    fields = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(fields | {"version": 0}) + "\n")

    assert len(OutcomeCache(tmp_path)) == 0


def test_a_cache_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match="cannot be used"):
        OutcomeCache(tmp_path / "file")


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    cache = OutcomeCache()
    cache.put({"a": OUTCOME})

    assert cache.get("a") == OUTCOME
    assert list(tmp_path.iterdir()) == []
