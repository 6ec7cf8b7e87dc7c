"""The expert set in the package: whole, small, an ordinary pipeline folder, and better with its experts than without."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline

from careedit.editing.families import in_context_prompt
from careedit.editor import Editor, load_editor
from careedit.experts import load_expert_set, verify_expert_set
from careedit.images import canvas_mask, compose_canvas, crop_target
from careedit_tiny.recipes.cards import measure
from careedit_tiny.recipes.vae import TEST_SEED, draw_panels, psnr
from careedit_tiny.world.samples import draw_sample, request_for

WEIGHTS = Path(str(files("careedit_tiny").joinpath("weights")))


@pytest.fixture(scope="module")
def editor() -> Editor:
    """The packaged editor."""
    return load_editor("tiny")


def test_nothing_is_wrong_with_it() -> None:
    assert verify_expert_set("tiny") == ()
    assert load_expert_set("tiny").names == ("erase", "compose", "style", "identity", "reference")


def test_it_is_well_under_sixty_megabytes_and_holds_no_pickle() -> None:
    weights = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in weights) < 55e6
    assert not [path for path in weights if path.suffix in {".bin", ".pt", ".ckpt", ".pkl"}]


def test_every_model_has_a_card() -> None:
    models = {path.parent for path in WEIGHTS.rglob("*.safetensors")}
    cards = {WEIGHTS / "README.md" if WEIGHTS / "base" in model.parents else model / "README.md" for model in models}
    assert len(cards) > len(load_expert_set("tiny").names)
    for card in cards:
        text = card.read_text("utf-8")
        for heading in ("## How it was made", "## How good it is", "## Limits"):
            assert heading in text, card


def test_the_vae_keeps_thirty_decibels(editor: Editor) -> None:
    panels = draw_panels(TEST_SEED, 64)
    assert psnr(editor.engine.base.vae, panels) > 30.5


def test_the_stock_pipeline_loads_the_base_and_the_expert_and_edits_alike(editor: Editor) -> None:
    sample = draw_sample("remove", 0, "test")
    spec = editor.expert_set.spec
    defaults = spec.defaults.model_copy(update={"start": "noise", "noise_scale": 1.0})  # the pipeline knows no other
    whole = Editor(replace(editor.expert_set, spec=spec.model_copy(update={"defaults": defaults})))
    ours = whole.edit(request_for(sample, expert="erase").model_copy(update={"steps": 3, "seed": 5})).image
    stock = cast(Any, FluxFillPipeline).from_pretrained(WEIGHTS / "base", dtype=torch.float32)
    stock.load_lora_weights(WEIGHTS / "experts" / "erase", weight_name="erase.safetensors")
    stock.set_progress_bar_config(disable=True)
    panel = sample.source_image()
    canvas = stock(
        prompt=in_context_prompt(sample.instruction),
        image=compose_canvas([panel, panel]),
        mask_image=canvas_mask(2, panel.size),
        width=128,
        height=64,
        num_inference_steps=3,
        max_sequence_length=editor.expert_set.spec.base.max_sequence_length,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    difference = np.abs(np.asarray(crop_target(canvas, 2), int) - np.asarray(ours, int))
    assert difference.max() <= 1


def test_a_trace_replays_to_the_identical_image(editor: Editor) -> None:
    request = request_for(draw_sample("style", 1, "test"), seed=3)
    result = editor.edit(request)
    again = editor.replay(result.trace, image=request.image)
    assert again.image.tobytes() == result.image.tobytes()


@pytest.mark.parametrize("competence", ["reference"])
def test_an_expert_edits_better_than_the_base_alone(editor: Editor, competence: str) -> None:
    expert, base = (measure(editor, competence, name, 32) for name in (competence, "base"))
    assert expert.followed > base.followed
