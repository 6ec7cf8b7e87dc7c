"""The number format of training: measured, said first, kept in reports and checkpoints, and chosen in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from careedit.cli.main import main
from careedit.errors import CareEditError, InputError
from careedit.finetune import precision
from careedit.finetune.card import Card, render
from careedit.finetune.loop import TrainConfig, TrainReport, train
from careedit.finetune.precision import active, choose, products, using

ROOT = Path(__file__).parents[3]
CONFIG = TrainConfig(steps=120, learning_rate=0.05, warmup=5, checkpoint_seconds=0.0)
SLOW, FAST = {"float32": 39.0, "bfloat16": 0.49}, {"float32": 39.0, "bfloat16": 160.0}


@pytest.fixture
def speeds(monkeypatch):
    """Pretends that the device is as fast as given."""
    return lambda figures: monkeypatch.setattr(precision, "measure", lambda *_: figures)


@pytest.mark.parametrize(
    ("figures", "name"),
    [(SLOW, "float32"), (FAST, "bfloat16"), ({"float32": 39.0, "bfloat16": 42.0}, "float32")],
)
def test_bfloat16_is_chosen_only_where_it_is_clearly_faster(speeds, figures, name):
    speeds(figures)
    chosen = choose()
    assert (chosen.name, chosen.reason, chosen.gflops) == (name, "measured", figures)


def test_a_requested_format_wins_over_the_measurement(speeds):
    speeds(SLOW)
    chosen = choose(requested="bfloat16")
    assert (chosen.name, chosen.reason) == ("bfloat16", "requested")
    assert str(chosen) == "bfloat16 (as requested on this cpu; measured: float32 39 GFLOP/s, bfloat16 0.49 GFLOP/s)"


def test_an_unknown_format_is_refused():
    with pytest.raises(InputError, match="'float8' is unknown; use float32 or bfloat16"):
        choose(requested="float8")


def test_the_real_measurement_times_both_formats_and_draws_no_random_number():
    state = torch.get_rng_state()
    with torch.inference_mode():
        figures = precision.measure.__wrapped__("cpu", torch.get_num_threads())
    assert min(figures["float32"], figures["bfloat16"]) > 0
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("figures", "weights", "dtype"),
    [
        (SLOW, torch.float32, torch.float32),
        (FAST, torch.float32, torch.bfloat16),
        (SLOW, torch.bfloat16, torch.bfloat16),  # float32 inputs do not fit frozen half-precision weights otherwise
    ],
)
def test_products_are_in_the_chosen_format(speeds, figures, weights, dtype):
    speeds(figures)
    layer = nn.Linear(4, 4).to(weights)
    with products("cpu", weights):
        assert layer(torch.ones(1, 4)).dtype == dtype


def fit(folder: Path, *, killed_at: int | None = None) -> TrainReport:
    """A small run of the loop that is killed at a step."""
    weight = nn.Parameter(torch.zeros(()))

    def loss(step: int, _: torch.Generator) -> Mapping[str, Tensor]:
        if step == killed_at:
            raise KeyboardInterrupt
        return {"loss": (weight - 3).square()}

    return train("line", [weight], loss, CONFIG, folder)


def test_a_run_says_its_format_first_and_reports_it(speeds, tmp_path, capsys):
    speeds(SLOW)
    report = fit(tmp_path)
    said = "float32 (the faster one on this cpu; measured: float32 39 GFLOP/s, bfloat16 0.49 GFLOP/s)"
    assert capsys.readouterr().err.splitlines()[0] == f"Number format: {said}."
    assert report.number_format == choose()
    report.save(tmp_path / "report.json")
    assert TrainReport.load(tmp_path / "report.json") == report
    card = Card("T", "S", "R", "D", {}, ())
    assert f"shared with other work, products in {said}" in render(card, report, licence="MIT")
    older = replace(report, number_format=None)
    assert "shared with other work, bfloat16 autocast" in render(card, older, licence="MIT")


@pytest.mark.parametrize(
    ("requested", "name", "words"),
    [
        (
            None,
            "float32",
            "line continues in float32, the number format of its checkpoint; --dtype bfloat16 changes that.",
        ),
        ("bfloat16", "bfloat16", "line continues in bfloat16, as requested; its checkpoint was made in float32."),
    ],
)
def test_a_resumed_run_keeps_its_format_unless_another_one_is_requested(
    speeds, tmp_path, capsys, requested, name, words
):
    speeds(SLOW)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, killed_at=60)
    capsys.readouterr()
    speeds(FAST)
    with using(choose(requested=requested)):
        report = fit(tmp_path)
    assert report.number_format is not None and report.number_format.name == name
    assert capsys.readouterr().err.splitlines()[0] == words


@pytest.mark.parametrize(
    ("arguments", "recipe"),
    [
        (("half",), "vae.make_half"),
        (("vae",), "vae.make_vae"),
        (("decoder",), "family.load_vae"),
        (("words",), "base.words.make_words"),
        (("base",), "family.make_base"),
        (("expert", "erase"), "family.make_lora"),
        (("expert", "unified"), "family.make_lora"),
        (("clip",), "clip.train.make_clip"),
        (("router", "--encoder", "x"), "router.run.train_command"),
        (("router", "--expert-set", "x", "--examples", "x"), "careedit.finetune.router.examples.read_examples"),
        (("judge",), "judge.report.make_judge"),
        (("dino",), "dino.report.make_dino"),
        (("all", "--budget-minutes", "60"), "whole.train_all"),
    ],
)
@pytest.mark.parametrize(("dtype", "name"), [((), "float32"), (("--dtype", "bfloat16"), "bfloat16")])
def test_every_recipe_takes_a_device_and_says_its_format_in_the_first_line(
    arguments, recipe, dtype, name, speeds, tmp_path, monkeypatch, capsys
):
    def stop(*_: Any, **__: Any) -> None:
        assert active() == choose(requested=dtype[1] if dtype else None)
        raise CareEditError("It runs.")

    speeds(SLOW)
    monkeypatch.setattr(recipe if recipe.startswith("careedit.") else f"careedit_tiny.recipes.{recipe}", stop)
    assert main(["train", *arguments, *dtype, "--device", "cpu", "--out", str(tmp_path)]) == 1
    first, *others = capsys.readouterr().err.splitlines()
    assert first.startswith(f"Number format: {name} (") and first.endswith("bfloat16 0.49 GFLOP/s).")
    assert others == ["error: It runs."]
    assert active() is None


def test_nothing_but_the_one_place_turns_autocast_on():
    files = [path for root in ("platform", "deployments", "eval") for path in (ROOT / root).rglob("*.py")]
    callers = [str(path.relative_to(ROOT)) for path in files if "autocast(" in path.read_text("utf-8")]
    assert callers == ["platform/careedit/finetune/precision.py"]
