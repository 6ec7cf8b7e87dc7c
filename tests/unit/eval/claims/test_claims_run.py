"""A run of made-up claims: what is measured, what is read again, the page, and the user's mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from careedit.bench.report import Goal
from careedit.cli.main import main
from careedit_tiny.evaluation.claims import Claim, Condition, Figure, Finding, NotMeasuredError, Setting, measure_claims
from careedit_tiny.evaluation.claims.page import write_pages


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    spec = SimpleNamespace(name="fake", version="1", sha256="ab" * 32)
    base = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32)
    editor = SimpleNamespace(expert_set=spec, router=SimpleNamespace(name="rules"), engine=SimpleNamespace(base=base))
    subject: Any = SimpleNamespace(editor=editor, unified=None, experts=("a", "b"), steps=8)
    return Setting(subject, tmp_path, n=4)


def claim(id_: int, measure: Any, *, trains: bool = False) -> Claim:
    return Claim(
        id_, f"Title {id_}", "It is so.", "A paper, section 1", "22 %", "By counting.",
        (Condition("gain", Goal("above", 0.0)),), measure, trains,
    )  # fmt: skip


def gained(_: Setting) -> Finding:
    gain = Figure(3.0, 1.0, 5.0, n=4, unit="points")
    return Finding({"gain": gain}, ("who", "right"), [("base", "10 %")], "20 steps.", "plot.png")


def impossible(_: Setting) -> Finding:
    raise NotMeasuredError("The set has no unified LoRA.")


def test_a_claim_that_cannot_be_measured_is_a_verdict_and_the_others_are_measured(setting: Setting) -> None:
    seen: list[tuple[int, str | None]] = []
    document = measure_claims(
        [claim(1, impossible), claim(2, gained)],
        setting,
        report=lambda one, verdict: seen.append((one.id, None if verdict is None else verdict.outcome)),
    )
    assert seen == [(1, None), (1, "not measured"), (2, None), (2, "holds")]
    first, second = json.loads(json.dumps(document, allow_nan=False))["claims"]
    assert (first["verdict"], first["reason"], first["finding"]) == (
        "not measured",
        "The set has no unified LoRA.",
        None,
    )
    assert second["finding"]["figures"]["gain"]["value"] == 3.0


def test_a_second_run_measures_only_what_changed(setting: Setting) -> None:
    calls: list[int] = []

    def counted(_: Setting) -> Finding:
        calls.append(1)
        return gained(_)

    first = measure_claims([claim(1, counted)], setting)
    again = measure_claims([claim(1, counted)], setting)
    assert len(calls) == 1
    assert again["claims"] == first["claims"]
    measure_claims([claim(1, counted)], replace(setting, minutes=5.0))  # it does not train
    assert len(calls) == 1
    measure_claims([claim(1, counted)], replace(setting, n=5))
    measure_claims([replace(claim(1, counted), version=2)], setting)
    measure_claims([claim(1, counted, trains=True)], replace(setting, minutes=5.0))
    assert len(calls) == 4


def test_the_pages_show_every_claim_with_its_figure_verdict_and_reason(setting: Setting) -> None:
    document = measure_claims([claim(1, impossible), claim(2, gained)], setting)
    write_pages(document, setting.out)
    page, html = ((setting.out / name).read_text("utf-8") for name in ("claims.md", "claims.html"))
    assert (
        "| 2 | **Title 2.** It is so. | A paper, section 1 | 22 % | gain: +3.0 points (+1.0 points to +5.0 points; n = 4) "
        "| **holds** |\n"
    ) in page
    assert "| 22 % | - | **not measured** |\n" in page
    assert "| who | right |\n|---|---|\n| base | 10 % |\n" in page
    assert "\n![Title 2](pictures/plot.png)\n" in page
    for text in ("**Not measured.** The set has no unified LoRA.", "Training: 20 steps.", "4 test scenes per claim"):
        assert text in page
    assert "\n\n\n" not in page
    assert "<strong>holds</strong>" in html and "<script" not in html


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--claims", "9,18"], "'18' is not a claim; the claims are 9, 10"),
        (["--claims", ""], "'' is not a claim"),
        (["--n", "0"], "--n is 0"),
        (["--batch", "9"], "--batch is 9"),
        (["--budget-minutes", "0"], "--budget-minutes"),
    ],
)
def test_the_users_mistakes_are_reported_before_anything_is_loaded(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("careedit_tiny.evaluation.quality.load_subject", lambda *_, **__: pytest.fail("loaded"))
    assert main(["eval", "claims", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
