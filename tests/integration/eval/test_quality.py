"""`careedit eval quality` on a small set of random weights: real edits, a real unified LoRA next to the set, resuming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from careedit.cli.main import main
from careedit.errors import ExpertError
from careedit.experts import UNIFIED_FOLDER, baseline_set, load_expert_set
from careedit_tiny.evaluation.quality import load_subject
from careedit_tiny.evaluation.quality.gallery import SIDE
from careedit_tiny.evaluation.quality.subject import UNIFIED_ARM

SMALL = ["--n", "2", "--validation-n", "1", "--infeasible-n", "1", "--chains-n", "1", "--steps", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def with_unified(untrained_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`untrained_set` with a unified LoRA next to its experts, which its file does not list."""
    folder = tmp_path_factory.mktemp("quality") / "set"
    shutil.copytree(untrained_set, folder)
    unified = folder / UNIFIED_FOLDER
    shutil.copytree(folder / "experts" / "style", unified)
    manifest = (unified / "expert.yaml").read_text("utf-8")
    (unified / "expert.yaml").write_text(manifest.replace("name: style", "name: unified"), "utf-8")
    return folder


@pytest.fixture(scope="module")
def run(with_unified: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """One small run through the command line: its document, and the folder of its cache and page."""
    folder = tmp_path_factory.mktemp("run")
    outputs = ["--out", str(folder / "q.json"), "--html", str(folder / "q.html"), "--picture", str(folder / "q.png")]
    where = ["--expert-set", str(with_unified), "--cache", str(folder / "cache"), *outputs]
    assert main(["eval", "quality", *SMALL, *where]) == 0
    return json.loads((folder / "q.json").read_text("utf-8")), folder


def test_every_row_but_the_learned_routers_is_measured(run: tuple[dict[str, Any], Path]) -> None:
    document, folder = run

    assert {name for name, row in document["rows"].items() if row is None} == {"learned_top1", "learned_top2"}
    assert set(document["missing"]) == {"learned_top1", "learned_top2", "router"}
    assert document["rows"]["identity"]["nfe"] == 0
    assert document["rows"]["unified"]["nfe"] == document["rows"]["base"]["nfe"] == 1
    assert document["rows"]["unified"]["seconds"] > 0
    assert document["environment"]["unified_rank"] == 8
    assert "careedit: does routing pay?" in (folder / "q.html").read_text("utf-8")
    with Image.open(folder / "q.png") as picture:
        assert picture.width > 5 * SIDE  # source, base, unified, rules, truth


def test_the_unified_lora_edits_as_the_same_weights_do_as_an_expert(run: tuple[dict[str, Any], Path]) -> None:
    rows = run[0]["rows"]

    for figure in ("compliance", "preservation_error", "l1"):  # the fixture's unified LoRA is the style expert's file
        assert rows["unified"][figure] == pytest.approx(rows["expert:style"][figure])


def test_a_second_run_reads_the_cache_and_edits_nothing(
    run: tuple[dict[str, Any], Path], with_unified: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    document, folder = run
    before = sorted((folder / "cache/quality").iterdir())
    monkeypatch.setattr("careedit.editor.Editor.edit", lambda *_, **__: pytest.fail("edited again"))
    out = tmp_path / "again.json"
    arguments = ["--expert-set", str(with_unified), "--cache", str(folder / "cache"), "--out", str(out)]

    assert main(["eval", "quality", *SMALL, *arguments]) == 0

    again = json.loads(out.read_text("utf-8"))
    assert sorted((folder / "cache/quality").iterdir()) == before
    assert again["rows"]["oracle"]["by_kind"] == document["rows"]["oracle"]["by_kind"]
    assert again["rows"]["base"] == document["rows"]["base"]


def test_a_set_without_unified_lora_says_so(untrained_set: Path) -> None:
    subject = load_subject(str(untrained_set), device="cpu")

    assert subject.unified is None
    assert UNIFIED_FOLDER in subject.missing["unified"]
    assert not subject.learned


def test_a_named_unified_lora_that_is_not_there_is_refused(untrained_set: Path, tmp_path: Path) -> None:
    with pytest.raises(ExpertError):
        load_subject(str(untrained_set), unified=tmp_path, device="cpu")


def test_a_broken_unified_lora_is_refused_not_left_out(with_unified: Path, tmp_path: Path) -> None:
    shutil.copytree(with_unified, tmp_path / "set")
    (tmp_path / "set" / UNIFIED_FOLDER / "style.safetensors").write_bytes(b"broken")

    with pytest.raises(ExpertError):
        load_subject(str(tmp_path / "set"), device="cpu")


def test_the_unified_lora_is_no_expert_of_the_set(with_unified: Path) -> None:
    loaded = load_expert_set(str(with_unified))

    assert "unified" not in loaded.names
    assert baseline_set(loaded).names == ("unified",)
    assert baseline_set(loaded).sha256 != loaded.sha256


def test_keys_follow_the_weights_and_not_the_router(with_unified: Path) -> None:
    subject = load_subject(str(with_unified), device="cpu")

    assert subject.made_with("style")["weights"] == subject.made_with(UNIFIED_ARM)["weights"]  # one file
    assert subject.made_with("style") != subject.made_with("erase") != subject.made_with("base")
    assert subject.made_with({"style": 0.6, "erase": 0.4}) != subject.made_with({"style": 0.4, "erase": 0.6})
    assert "router" not in subject.made_with("style")
