"""Training rows of bases that read pictures as tokens: what is encoded, what is lost, what is refused."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

import small_bases
from careedit.cli.main import main
from careedit.editing import FAMILIES, EncodingCache
from careedit.editing.schedule import make_schedule
from careedit.experts import PanelSpec
from careedit.finetune.data import Row, RowRules, check_rows, find_columns, open_table
from careedit.finetune.flow import GIVEN_WEIGHT
from careedit.finetune.memory import estimate
from careedit.finetune.sequence import draw_sigmas, encode_row, sequence_loss

RULES = RowRules(PanelSpec(size=64, fit="resize", multiple=16))


@pytest.fixture(scope="module")
def klein():
    pipe = small_bases.klein(distilled=False)
    return FAMILIES[type(pipe).__name__].from_pipeline(pipe, max_sequence_length=64)


@pytest.fixture
def row(draw_picture):
    return partial(Row, draw_picture(seed=1), draw_picture(seed=2), instruction="add a star", digest="0")


def test_only_the_targets_tokens_are_in_the_loss(klein, row, draw_picture, monkeypatch):
    encoded = encode_row(row(mask=None, reference=draw_picture((32, 128), 3)), RULES, klein, EncodingCache())
    assert encoded["grids"].tolist() == [[4, 4], [4, 4], [8, 2]]
    assert encoded["picture.1"].shape == (1, 16, 16)
    seen = {}

    def forward(hidden_states, **inputs):
        seen.update(inputs, tokens=hidden_states)
        velocity = torch.full_like(hidden_states, 1e6)  # wrong behind the target
        velocity[:, :16] = 0
        return (velocity,)

    monkeypatch.setattr(klein.transformer, "forward", forward)
    loss = sequence_loss(klein, [encoded, encoded], torch.Generator().manual_seed(0))
    assert 0 < loss < 100
    assert seen["tokens"].shape == (2, 48, 16)
    assert torch.equal(seen["tokens"][0, 16:32], encoded["picture.0"][0])
    assert seen["img_ids"][:, 0].unique().tolist() == [0, 10, 20]
    again = sequence_loss(klein, [encoded, encoded], torch.Generator().manual_seed(0))
    assert loss.item() == again.item()


def test_a_mask_weights_the_loss(klein, row, draw_mask, monkeypatch):
    encoded = encode_row(row(mask=draw_mask(), reference=None), RULES, klein, EncodingCache())
    free = encoded["free"]
    assert 0 < free.sum() < free.numel()
    same = {**encoded, "target": encoded["picture.0"]}  # no token is edited
    velocity = torch.zeros(1, 32, 16)
    monkeypatch.setattr(klein.transformer, "forward", lambda hidden_states, **_: (velocity,))
    loss = sequence_loss(klein, [same], torch.Generator().manual_seed(0))
    noise = klein.noise((4, 4), torch.Generator().manual_seed(0))
    error = (noise - same["target"]).square().mean(dim=2, keepdim=True)
    weight = torch.where(free > 0, 1.0, GIVEN_WEIGHT)
    torch.testing.assert_close(loss, (error * weight).sum() / weight.sum())


@pytest.mark.parametrize("build", [partial(small_bases.klein, distilled=False), small_bases.qwen, small_bases.kontext])
def test_noise_levels_are_as_dense_as_an_edits_steps(build):
    pipe = build()
    base = FAMILIES[type(pipe).__name__].from_pipeline(pipe)
    drawn = draw_sigmas(base, 20_000, 4096, torch.Generator().manual_seed(0)).sort().values
    steps = base.facts.default_steps
    sigmas = make_schedule(base.scheduler, steps, base.shift(4096, steps), base.device).sigmas[:-1]
    assert 0 < drawn[0] < drawn[-1] <= 1
    assert abs(drawn.mean() - sigmas.mean()) < 0.02


def test_the_estimate_of_activations_is_near_what_is_kept(klein, row):
    encoded = encode_row(row(mask=None, reference=None), RULES, klein, EncodingCache())
    klein.transformer.requires_grad_(True)
    kept: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = sequence_loss(klein, [encoded] * 4, torch.Generator().manual_seed(0))
    weights = {parameter.untyped_storage().data_ptr() for parameter in klein.transformer.parameters()}
    measured = sum(size for pointer, size in kept.items() if pointer not in weights)
    assert loss.isfinite()
    memory = estimate(klein, rank=4, batch=4, pixels=2 * 64 * 64, checkpoint_gradients=False)
    assert 0.5 < memory.activations / measured < 2
    assert memory.checkpointed < memory.activations
    assert "with --checkpoint-gradients" in str(memory)


def test_a_distilled_base_is_refused_before_its_weights_are_read(tmp_path, draw_picture, capsys):
    base, rows = tmp_path / "base", tmp_path / "rows"
    base.mkdir()
    rows.mkdir()
    draw_picture().save(rows / "0.png")
    (rows / "metadata.jsonl").write_text(json.dumps({"source": "0.png", "target": "0.png", "instruction": "x"}))
    (base / "model_index.json").write_text(json.dumps({"_class_name": "Flux2KleinPipeline", "is_distilled": True}))
    options = ("--data", str(rows), "--base", str(base), "--name", "a", "--out", str(tmp_path / "out"))
    assert main(["train", "expert", *options, "--dtype", "float32"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "is distilled to a few steps" in error
    assert "FLUX.2-klein-base-4B" in error
    assert not (tmp_path / "out").exists()


def test_references_have_panels_of_their_own_or_are_refused(tmp_path, klein, draw_picture):
    with (tmp_path / "metadata.jsonl").open("w") as lines:
        for number in range(2):
            for role, size in (("source", (64, 64)), ("target", (64, 64)), ("reference", (32, 128))):
                draw_picture(size, number).save(tmp_path / f"{number}-{role}.png")
            names = {role: f"{number}-{role}.png" for role in ("source", "target", "reference")[: 2 + number]}
            lines.write(json.dumps(names | {"instruction": "add a star"}) + "\n")
    table = open_table(tmp_path)
    columns = find_columns(table.columns)
    plan = check_rows(table, columns, RULES, klein, held_out=0)
    assert list(plan.buckets(held_out=False)) == ["rows-2x64x64", "rows-3x64x64-32x128"]
    assert [planned.pixels for planned in plan.planned] == [2 * 64 * 64, 3 * 64 * 64]
    pipe = small_bases.kontext()
    kontext = FAMILIES[type(pipe).__name__].from_pipeline(pipe)
    (problem,) = check_rows(table, columns, RULES, kontext, held_out=0).problems
    assert "the base flux-kontext takes none; remove the column" in str(problem)
