"""The training loop: resuming, averaging, and stopping on a loss that is not a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from careedit.errors import CareEditError
from careedit.finetune.loop import TrainConfig, TrainReport, train

CONFIG = TrainConfig(steps=120, learning_rate=0.05, warmup=5, checkpoint_seconds=0.0)


def line_fit() -> tuple[list[nn.Parameter], Callable[[int, torch.Generator], Mapping[str, Tensor]]]:
    """Fit y = 3x - 1 from noisy points that depend on the step alone."""
    weight, bias = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def loss(_: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        x = torch.randn(16, generator=generator)
        y = 3 * x - 1 + 0.1 * torch.randn(16, generator=generator)
        return {"loss": (weight * x + bias - y).square().mean()}

    return [weight, bias], loss


def test_a_recipe_learns(tmp_path):
    parameters, loss = line_fit()
    report = train("line", parameters, loss, CONFIG, tmp_path)
    assert parameters[0].item() == pytest.approx(3, abs=0.1)
    assert parameters[1].item() == pytest.approx(-1, abs=0.1)
    assert report.curve[-1][0] == CONFIG.steps
    assert report.curve[-1][1] < report.curve[0][1]


@pytest.mark.parametrize("killed_at", [51, 77, 100])
def test_a_killed_run_resumes_to_the_same_weights_and_losses(tmp_path, killed_at):
    whole, loss = line_fit()
    expected = train("line", whole, loss, CONFIG, tmp_path / "whole")

    parameters, loss = line_fit()

    def killed(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        if step == killed_at:
            raise KeyboardInterrupt
        return loss(step, generator)

    with pytest.raises(KeyboardInterrupt):
        train("line", parameters, killed, CONFIG, tmp_path / "killed")
    again, loss = line_fit()
    report = train("line", again, loss, CONFIG, tmp_path / "killed")
    assert [p.item() for p in again] == [p.item() for p in whole]
    assert report.curve == expected.curve


def test_the_moving_average_is_what_a_recipe_ships(tmp_path):
    plain, loss = line_fit()
    train("line", plain, loss, CONFIG, tmp_path / "plain")
    averaged, loss = line_fit()
    train("line", averaged, loss, replace(CONFIG, ema=0.9), tmp_path / "averaged")
    assert averaged[0].item() != plain[0].item()
    assert averaged[0].item() == pytest.approx(3, abs=0.15)


def test_a_finished_run_is_not_trained_again(tmp_path):
    parameters, loss = line_fit()
    train("line", parameters, loss, CONFIG, tmp_path)

    def must_not_run(step: int, _: torch.Generator) -> Mapping[str, Tensor]:
        raise AssertionError(step)

    again, _ = line_fit()
    train("line", again, must_not_run, CONFIG, tmp_path)
    assert [p.item() for p in again] == [p.item() for p in parameters]


def test_a_loss_that_is_not_a_number_stops_with_a_sentence_and_keeps_the_checkpoint(tmp_path):
    parameters, loss = line_fit()

    def diverging(step: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        value = loss(step, generator)["loss"]
        return {"loss": value * float("nan") if step == 60 else value}

    with pytest.raises(CareEditError, match=r"step 60 is not a number.*Lower the learning rate"):
        train("line", parameters, diverging, CONFIG, tmp_path)
    assert torch.load(tmp_path / "line.ckpt", weights_only=True)["step"] == 50


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    parameters, loss = line_fit()
    train("line", parameters, loss, CONFIG, tmp_path)
    with pytest.raises(CareEditError, match="other settings"):
        train("line", parameters, loss, replace(CONFIG, seed=1), tmp_path)


def test_a_checkpoint_of_an_older_version_is_refused(tmp_path):
    parameters, loss = line_fit()
    train("line", parameters, loss, CONFIG, tmp_path)
    state = torch.load(tmp_path / "line.ckpt", weights_only=True)
    torch.save({"optimizer": state.pop("states"), **state}, tmp_path / "line.ckpt")
    with pytest.raises(CareEditError, match="an older version of careedit"):
        train("line", parameters, loss, CONFIG, tmp_path)


def test_a_full_disk_stops_with_a_sentence(tmp_path, monkeypatch):
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", no_space)
    parameters, loss = line_fit()
    with pytest.raises(CareEditError, match="free some space"):
        train("line", parameters, loss, CONFIG, tmp_path)
    assert not list(tmp_path.glob("*.tmp"))


def test_a_report_survives_its_file(tmp_path):
    parameters, loss = line_fit()
    report = train("line", parameters, loss, CONFIG, tmp_path)
    report.save(tmp_path / "line.json")
    assert TrainReport.load(tmp_path / "line.json") == report


def test_the_learning_rate_warms_up_to_its_peak_and_falls_to_a_twentieth(tmp_path, monkeypatch):
    rates: list[float] = []

    def recorded(optimizer: torch.optim.SGD) -> None:
        rates.append(optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    parameters, loss = line_fit()
    train("line", parameters, loss, CONFIG, tmp_path)
    assert [rates[step] for step in (0, 4, 119)] == pytest.approx([0.01, 0.05, 0.0025])
    assert rates[:5] == sorted(rates[:5])
    assert rates[4:] == sorted(rates[4:], reverse=True)
