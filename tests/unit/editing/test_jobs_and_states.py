"""What a job may ask, and what a state says about itself."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from careedit.editing import EditJob, EditState
from careedit.editing.families import Encoded
from careedit.editing.schedule import make_schedule
from careedit.errors import CancelledError, CareEditError, InputError, MaskError

PANEL = Image.new("RGB", (64, 64))


def job(**fields) -> EditJob:
    return EditJob(**{"source": PANEL, "instruction": "remove the star", "seed": 0, "steps": 3, **fields})


def state() -> EditState:
    schedule = make_schedule(FlowMatchEulerDiscreteScheduler(), 3, 0.5, torch.device("cpu"))
    nothing = torch.zeros(1, 128, 1)
    return EditState(job(), Encoded((), None, (8, 16), (8, 16), {}, ()), schedule, nothing, nothing, None, None)


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"steps": 0}, InputError, "at least one denoising step"),
        ({"seed": -1}, InputError, "must not be negative"),
        ({"noise_scale": 0.0}, InputError, "must be above 0"),
        ({"noise_scale": 1.1}, InputError, "at most 1"),
        ({"weights": {}}, InputError, "sum to 1"),
        ({"weights": {"erase": 0.5}}, InputError, "sum to 1"),
        ({"weights": {"erase": 1.5, "style": -0.5}}, InputError, "positive"),
        ({"mask": Image.new("L", (32, 64))}, MaskError, "fit both alike"),
    ],
)
def test_a_job_that_cannot_be_done_is_refused_in_a_sentence(fields, error, says):
    with pytest.raises(error, match=says):
        job(**fields)


def test_a_state_is_live_until_its_last_step():
    edit = state()
    assert edit.live and edit.sigma == 1

    edit.index = 3

    assert edit.done and not edit.live and edit.sigma == 0
    edit.raise_unless_finished()


def test_an_unfinished_state_says_how_far_it_is():
    edit = state()
    edit.index = 2

    with pytest.raises(CareEditError, match="2 of 3 steps"):
        edit.raise_unless_finished()


def test_a_cancelled_state_is_not_live_and_cannot_be_finished():
    edit = state()
    edit.index = 1
    edit.cancel()

    assert not edit.live
    with pytest.raises(CancelledError, match="after 1 of 3 steps"):
        edit.raise_unless_finished()
