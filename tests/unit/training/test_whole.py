"""How a budget becomes steps, and what a rerun does."""

from __future__ import annotations

from pathlib import Path

import pytest

from careedit.errors import CareEditError
from careedit.finetune.loop import TrainConfig, TrainReport
from careedit_tiny.recipes import whole
from careedit_tiny.recipes.whole import Stage, read_plan, train_all


@pytest.fixture
def ran(monkeypatch):
    """What was trained: (stage, steps); a step of any stage takes a second."""
    done: list[tuple[str, int]] = []

    def stage(name: str, share: float, steps: int) -> Stage:
        def run(out: Path, config: TrainConfig) -> TrainReport:
            done.append((name, config.steps))
            report = TrainReport(name, config, 1.0, 1, ((config.steps, 0.5),))
            report.save(out / f"{name}.json")
            return report

        return Stage(name, share, TrainConfig(steps=steps, learning_rate=1e-3), run)

    stages = (
        stage("vae", 0.2, 10_000), stage("expert-a", 0.2, 100), stage("expert-b", 0.2, 10_000),
        stage("expert-unified", 0.4, 10_100),
    )  # fmt: skip
    monkeypatch.setattr(whole, "stages", lambda: stages)
    monkeypatch.setattr(whole, "seconds_per_step", lambda stage, out: 1.0)
    return done


def test_a_stage_gets_its_share_of_the_budget_and_the_unified_lora_the_samples_of_all_experts(ran, tmp_path):
    train_all(tmp_path, 60)
    assert ran == [("vae", 720), ("expert-a", 100), ("expert-b", 720), ("expert-unified", 820)]


def test_a_rerun_goes_on_with_the_same_steps_and_repeats_nothing(ran, tmp_path):
    train_all(tmp_path, 60)
    (tmp_path / "expert-b.json").unlink()
    ran.clear()
    train_all(tmp_path, 60)
    assert ran == [("expert-b", 720)]


def test_another_budget_for_the_same_folder_is_refused(ran, tmp_path):
    train_all(tmp_path, 60)
    with pytest.raises(CareEditError, match="a budget of 60 minutes; give that budget again"):
        read_plan(tmp_path, 120)


def test_a_step_is_timed_without_what_is_drawn_and_measured_around_it(tmp_path):
    def run(out: Path, config: TrainConfig) -> TrainReport:
        assert not list(out.glob("*.ckpt")), "a timed run must not resume the one before it"
        (out / "router-abc.ckpt").touch()
        warming = 0.0 if (out / "drawn").exists() else 30.0
        (out / "drawn").touch()
        return TrainReport("router", config, warming + 2.0 * config.steps, 1, ((config.steps, 0.5),))

    stage = Stage("router", 0.1, TrainConfig(steps=100, learning_rate=1e-3), run)
    assert whole.seconds_per_step(stage, tmp_path) == pytest.approx(2.0)
    assert not list(tmp_path.iterdir())
