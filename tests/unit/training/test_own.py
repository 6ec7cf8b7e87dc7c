"""Training on own rows: canvases of several sizes, a base that takes guidance, and nothing left on the base."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from careedit.editing import FluxFill
from careedit.experts import PanelSpec
from careedit.finetune.data import Plan, RowRules, Table, check_rows, find_columns, open_table
from careedit.finetune.expert import default_learning_rate, encode_rows, own_config, train_own
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH, build_pipeline

RULES = RowRules(PanelSpec(size=64, fit="resize", multiple=8))


@pytest.fixture(scope="module")
def base():
    """An untrained base that takes a guidance scale, as FLUX.1-Fill does."""
    pipe = build_pipeline(["add a red star"], guidance_embeds=True)
    return FluxFill.from_pipeline(pipe, max_sequence_length=MAX_SEQUENCE_LENGTH)


@pytest.fixture
def table(tmp_path, draw_picture):
    """A wide row, and a square one with a reference, each twice."""
    with (tmp_path / "metadata.jsonl").open("w") as lines:
        for number, size in enumerate([(96, 64), (64, 64)] * 2):
            for role in ("source", "target", "reference"):
                draw_picture(size, 10 * number + len(role)).save(tmp_path / f"{number}-{role}.png")
            row = {"source": f"{number}-source.png", "target": f"{number}-target.png", "instruction": "add a red star"}
            lines.write(json.dumps(row | ({"reference": f"{number}-reference.png"} if number % 2 else {})) + "\n")
    return open_table(tmp_path)


def planned(table: Table, base: FluxFill) -> Plan:
    plan = check_rows(table, find_columns(table.columns), RULES, base, held_out=0)
    return replace(plan, planned=tuple(replace(row, held_out=row.index >= 2) for row in plan.planned))


def test_rows_of_several_shapes_are_trained_on_together(table, base, tmp_path, monkeypatch):
    monkeypatch.setattr("careedit.finetune.expert._VALIDATION_DRAWS", 1)
    before = {name: value.clone() for name, value in base.transformer.state_dict().items()}
    pools, held_out = encode_rows(table, find_columns(table.columns), RULES, planned(table, base), base, tmp_path / "p")
    assert sorted(pools) == ["rows-2x80x56", "rows-3x64x64"]
    assert pools["rows-2x80x56"].pool["clean"].shape == (1, 8, 14, 40)
    trained = train_own("frame", base, pools, held_out, tmp_path, own_config(base, steps=2), rank=8, batch=2)
    assert any(bool(value.any()) for name, value in trained.adapter.items() if "lora_B" in name)
    assert trained.validation is not None
    assert trained.validation[0] != trained.validation[1]
    after = base.transformer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_encoded_rows_are_not_encoded_again(table, base, tmp_path):
    columns, plan = find_columns(table.columns), planned(table, base)
    encode_rows(table, columns, RULES, plan, base, tmp_path / "p")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "p").iterdir()}
    (tmp_path / "0-source.png").unlink()
    encode_rows(table, columns, RULES, plan, base, tmp_path / "p")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "p").iterdir()} == written


def test_a_small_base_learns_faster(base, monkeypatch):
    assert default_learning_rate(base) == 2e-3
    monkeypatch.setattr("careedit.finetune.expert.SMALL_BASE", 1)
    assert default_learning_rate(base) == 1e-4
