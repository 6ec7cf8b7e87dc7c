"""`careedit eval claims` on real models: two cheap claims from end to end, resuming, and a LoRA that a claim trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from careedit.cli.main import main
from careedit.experts import baseline_set, load_expert_set
from careedit_tiny.evaluation.claims import Setting
from careedit_tiny.evaluation.claims import training as claim_training
from careedit_tiny.evaluation.claims.trained import brand_lesson
from careedit_tiny.evaluation.claims.training import Workshop, state_of
from careedit_tiny.evaluation.quality import load_subject
from careedit_tiny.world.samples import draw_sample

SMALL = ["--claims", "12,14", "--n", "2", "--steps", "1", "--threads", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Two claims on the packaged set through the command line: the document and the folder."""
    folder = tmp_path_factory.mktemp("claims")
    assert main(["eval", "claims", *SMALL, "--out", str(folder)]) == 0
    return json.loads((folder / "claims.json").read_text("utf-8")), folder


def test_two_claims_are_measured_decided_and_written(run: tuple[dict[str, Any], Path]) -> None:
    document, folder = run
    identity, infeasible = document["claims"]
    for claim in (identity, infeasible):
        assert claim["verdict"] in ("holds", "does not hold here", "undecided")
        assert [claim["finding"]["figures"][name]["n"] for name in claim["decided_by"]]
    assert len(identity["finding"]["rows"]) == 5  # two experts, base, unified LoRA, routed
    assert "hallucinated by the unified LoRA" in infeasible["finding"]["figures"]
    assert document["environment"]["expert_set_sha256"].startswith("1f6dc1604712")
    page = (folder / "claims.md").read_text("utf-8")
    assert "## 12. Identity" in page and "## 14. Infeasible instructions" in page


def test_a_rerun_makes_no_edit_again_even_if_a_finding_was_lost(
    run: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    document, folder = run
    (lost,) = (folder / "findings").glob("claim-12-*.json")
    lost.unlink()
    monkeypatch.setattr("careedit.editor.Editor.edit", lambda *_, **__: pytest.fail("edited again"))
    assert main(["eval", "claims", *SMALL, "--out", str(folder)]) == 0
    assert json.loads((folder / "claims.json").read_text("utf-8"))["claims"] == document["claims"]


def test_a_lora_is_trained_once_edits_and_is_trained_further_from_its_own_weights(
    untrained_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_training, "BATCH", 2)
    monkeypatch.setattr(claim_training, "TIMED", 1)
    setting = Setting(load_subject(str(untrained_set), steps=1, device="cpu"), tmp_path, n=1, minutes=0.001)
    workshop = Workshop(setting, 9, units=1, rank=2)
    steps = workshop.full_steps()
    made = workshop.train("newcomer", [brand_lesson("navy")], steps, 2)
    sample = draw_sample("style", 0, "test")
    (outcome,) = setting.with_experts([made]).edit([sample], "newcomer")
    assert outcome.nfe == 1
    assert not list(workshop.folder.glob("*.ckpt"))

    again = Workshop(setting, 9, units=1, rank=2)
    monkeypatch.setattr(again, "_train", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(again, "_seconds_per_step", lambda: pytest.fail("timed again"))
    assert again.full_steps() == steps
    assert again.train("newcomer", [brand_lesson("navy")], steps, 2) == made

    expert_set = load_expert_set(untrained_set)
    rank, state = state_of(baseline_set(expert_set, made).load("newcomer"))
    assert rank == 2
    monkeypatch.setattr(claim_training, "own_config", lambda *_, **options: _still(options["steps"]))
    further = workshop.train("further", [brand_lesson("olive")], 1, 2, state)
    first, last = ((folder / "adapter.safetensors").read_bytes() for folder in (made, further))
    assert first == last  # at a learning rate of 0 it is what it started from


def _still(steps: int) -> Any:
    from careedit.finetune.loop import TrainConfig

    return TrainConfig(steps=steps, learning_rate=0.0, warmup=0, weight_decay=0.0)
