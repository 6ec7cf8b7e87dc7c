"""How a budget becomes steps, what a rerun does, and what is kept of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from careedit.errors import CareEditError, InputError
from careedit.finetune.loop import TrainConfig, TrainReport
from careedit.finetune.precision import NumberFormat, using
from careedit_tiny.recipes import keep as keeping
from careedit_tiny.recipes import whole
from careedit_tiny.recipes.keep import keep
from careedit_tiny.recipes.whole import Plan, Stage, train_all


class Clock:
    """Stands in for `time`: seconds pass only when a stage says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(whole, "time", clock)
    return clock


@pytest.fixture
def ran(monkeypatch, clock):
    """What was trained: (stage, steps, batches); drawing the data of a stage takes 10 s, a step 1 s."""
    done: list[tuple[str, int, int]] = []

    def stage(name: str, share: float, steps: int) -> Stage:
        def run(out: Path, config: TrainConfig) -> TrainReport:
            done.append((name, config.steps, config.batches))
            clock.now += config.steps
            report = TrainReport(name, config, 1.0, 1, ((config.steps, 0.5),))
            report.save(out / f"{name}.json")
            return report

        return Stage(name, share, TrainConfig(steps=steps, learning_rate=1e-3), run)

    def timed(stage: Stage, out: Path, batches: int = 1) -> float:
        clock.now += 10 * (batches == 1)
        return costs(batches)

    costs: Callable[[int], float] = lambda batches: 1.0
    stages = (
        stage("vae", 0.2, 10_000), stage("expert-a", 0.2, 100), stage("expert-b", 0.2, 10_000),
        stage("expert-unified", 0.4, 10_100),
    )  # fmt: skip
    monkeypatch.setattr(whole, "RECIPES", dict.fromkeys(("a", "b")))
    monkeypatch.setattr(whole, "stages", lambda _: stages)
    monkeypatch.setattr(keeping, "stages", lambda _: stages)
    monkeypatch.setattr(whole, "seconds_per_step", timed)
    return done


def test_a_stage_gets_its_share_of_the_minutes_that_are_left_after_drawing(ran, clock, tmp_path):
    train_all(tmp_path, 60)
    # 3,600 s less 5 % for measuring; what one stage does not need goes to the later ones.
    vae = int((3420 - 10) * 0.2)
    second = int((3420 - 10 - vae - 10 - 100 - 10) * 0.2 / 0.6)
    assert ran == [("vae", vae, 1), ("expert-a", 100, 1), ("expert-b", second, 1), ("expert-unified", 100 + second, 1)]
    assert clock.now - 1000 < 3600
    assert Plan.read(tmp_path, 60).seconds == clock.now - 1000


@pytest.mark.parametrize(("device", "slower", "batches"), [("cuda", 1.1, 8), ("cuda", 1.5, 1), ("cpu", 1.0, 1)])
def test_a_gpu_learns_from_larger_batches_where_the_time_has_no_room_for_the_steps(
    ran, clock, tmp_path, monkeypatch, device, slower, batches
):
    monkeypatch.setattr(whole, "seconds_per_step", lambda stage, out, batches=1: slower ** (batches.bit_length() - 1))
    stage = whole.stages(1)[0]
    with using(NumberFormat("float32", "measured", device)):
        steps, chosen = whole.fit(stage, tmp_path, lambda: 3000.0)
    assert chosen == batches
    assert steps == int(3000 / slower ** (batches.bit_length() - 1))
    assert (chosen == 1) == (steps == 3000)


def test_minutes_that_are_used_up_end_the_run_with_a_sentence(ran, clock, tmp_path):
    Plan(60, {"vae": 3600}).write(tmp_path)
    with pytest.raises(CareEditError, match="The 60 minutes are used up before expert-a"):
        train_all(tmp_path, 60)
    assert ran == [("vae", 3600, 1)]


def test_the_unified_lora_sees_as_many_samples_as_all_experts_together(ran, tmp_path):
    plan = Plan(60, {"vae": 5, "expert-a": 100, "expert-b": 50}, {"expert-a": 1, "expert-b": 4})
    plan.write(tmp_path)
    train_all(tmp_path, 60)
    assert ran[-1] == ("expert-unified", 75, 4)


def test_a_rerun_goes_on_with_the_same_steps_and_repeats_nothing(ran, tmp_path):
    train_all(tmp_path, 60)
    before = ran[2]
    (tmp_path / "expert-b.json").unlink()
    ran.clear()
    train_all(tmp_path, 60)
    assert ran == [before]


def test_a_plan_of_steps_alone_is_gone_on_with(ran, tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"version": 2, "minutes": 60, "steps": {"vae": 7}}))
    train_all(tmp_path, 60)
    assert ran[0] == ("vae", 7, 1)


def test_another_budget_for_the_same_folder_is_refused(ran, tmp_path):
    train_all(tmp_path, 60)
    with pytest.raises(CareEditError, match="a budget of 60 minutes; give that budget again"):
        train_all(tmp_path, 120)


def test_what_is_kept_has_the_models_the_reports_and_a_summary_and_no_training_data(ran, tmp_path):
    run, kept = tmp_path / "run", tmp_path / "kept"
    train_all(run, 60)
    (run / "expert-unified.json").unlink()
    for name in ("base/model.safetensors", "pools/fill-0000.safetensors", "judge-pool/x.safetensors", "base.ckpt"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes(b"0" * 100)
    (run / "base" / "config.json").write_text('{"_name_or_path": "/home/someone/run/vae", "side": 96}')
    found = keep(run, kept)
    assert json.loads((kept / "base" / "config.json").read_text()) == {"side": 96}, "no path of the machine is kept"
    assert sorted(path.name for path in kept.iterdir()) == [
        "base", "expert-a.json", "expert-b.json", "plan.json", "summary.json", "vae.json"
    ]  # fmt: skip
    assert json.loads((kept / "summary.json").read_text()) == found
    assert found["missing"] == ["expert-unified"]
    assert found["stages"]["expert-a"] == {
        "steps": 100, "batches": 1, "seconds": 1.0, "loss": [0.5, 0.5], "format": None, "device": None
    }  # fmt: skip


def test_what_is_too_large_or_empty_is_not_kept(ran, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no finished recipe"):
        keep(tmp_path / "nothing", tmp_path / "kept")
    train_all(tmp_path / "run", 60)
    monkeypatch.setattr(keeping, "MAXIMUM_BYTES", 10)
    with pytest.raises(CareEditError, match="more than 0 MB"):
        keep(tmp_path / "run", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
