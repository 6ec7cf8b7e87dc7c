"""The reduced form of `careedit bench gpu`: every case runs, every goal has a state, and a budget leaves cases out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from careedit.bench.gpu import GOALS, Settings, bench_gpu
from careedit.bench.gpu.document import make_document
from careedit.cli.main import main

CPU = torch.device("cpu")
CASES = ("peak", "load", "steps", "edit", "merged", "slots", "compiled", "compiled_slots", "peft_and_spans", "step_cache", "fp8")  # fmt: skip


def test_the_reduced_form_runs_every_case_and_claims_nothing(tmp_path: Path, capsys: Any) -> None:
    out, plot = tmp_path / "gpu.json", tmp_path / "gpu.png"
    assert main(["bench", "gpu", "--device", "cpu", "--out", str(out), "--plot", str(plot), "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(out.read_text("utf-8"))
    assert json.loads(shown.out) == document
    assert document["reduced"] and document["profile"] is None and tuple(document["cases"]) == CASES
    missing = {name: case["reason"] for name, case in document["cases"].items() if case["state"] != "measured"}
    assert missing == {}
    assert {goal["state"] for goal in document["goals"].values()} == {"not measured"}
    assert set(document["goals"]) == set(GOALS) and "reduced form" in shown.err
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_case_that_does_not_fit_is_left_out_and_every_case_is_saved() -> None:
    saved: list[dict[str, Any]] = []
    settings = Settings.small("klein", seconds=1e-6)
    document = bench_gpu(settings, device=CPU, dtype=torch.float32, save=saved.append)
    assert len(saved) == len(CASES)
    assert saved[0]["cases"]["fp8"]["reason"] == "the run ended before it"
    assert all(case["state"] == "not measured" for case in document["cases"].values())
    assert "of the budget are left" in document["cases"]["peak"]["reason"]


def measured(**cases: dict[str, Any]) -> dict[str, Any]:
    """The document of a run on a GPU with these cases."""
    found = {name: {"state": "measured", "reason": None, **case} for name, case in cases.items()}
    return make_document({"family": "klein", "reduced": False}, found, CASES, CPU, torch.bfloat16)


def test_goals_compare_compiled_blocks_where_they_were_measured_and_eager_ones_elsewhere() -> None:
    eager = {
        "peak": {"tflop_per_s": 800.0},
        "steps": {"tflop_per_row": 80.0, "step_s": {"1": 0.25, "4": 0.9, "8": 1.8}},
        "edit": {"edit_s": 0.9, "stock_edit_s": 1.0, "encode_s": 0.1, "decode_s": 0.2, "edit_rows": 1},
        "merged": {"batch_s": 1.8},
        "slots": {"batch_s": 2.4},
    }
    first = measured(**eager)
    assert [goal["state"] for goal in first["goals"].values()] == ["not met", "not met", "not met"]
    assert first["figures"]["share_of_peak"] == pytest.approx(4 * 80 / 0.9 / 800)
    assert first["profile"] == pytest.approx(
        {"step_s": 0.25, "fixed": 0.8 / 7, "encode_s": 0.1, "decode_s": 0.2, "shared_ratio": 4 / 3, "blocks": "eager"}
    )
    fast = {
        "compiled": {"step_s": {"1": 0.2, "4": 0.7, "8": 1.4}, "edit_s": 0.8, "stock_edit_s": 0.85},
        "compiled_slots": {"batch_s": 1.5},
    }
    second = measured(**eager, **fast)
    assert [goal["state"] for goal in second["goals"].values()] == ["met", "met", "met"]
    assert second["profile"]["blocks"] == "compiled" and second["profile"]["step_s"] == 0.2
    third = measured(**eager, compiled=fast["compiled"])
    assert third["goals"]["mixed_over_merged"]["state"] == "not measured"
