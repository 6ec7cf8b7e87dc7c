"""The recipes end to end, a few steps each: from nothing to an expert set that edits."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from careedit.cli.main import main
from careedit.editor import Editor
from careedit.errors import CareEditError
from careedit.experts import UNIFIED_FOLDER, ExpertManifest, load_adapter, load_expert_set, verify_expert_set
from careedit.experts.manifest import MANIFEST_FILE
from careedit.finetune import pool as pool_module
from careedit.records import EditRequest
from careedit_tiny.models.family import build_vae
from careedit_tiny.recipes import experts as expert_recipe
from careedit_tiny.recipes import vae as vae_recipe
from careedit_tiny.recipes.base import train as base_recipe
from careedit_tiny.recipes.base import words as words_recipe
from careedit_tiny.recipes.base.probe import PROBE_FILE
from careedit_tiny.recipes.family import assemble, load_tiny_base, load_trained_base, make_base, make_lora, save_base


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A family after a handful of steps of every recipe."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_module, "SHARD", 8)
        patch.setattr(base_recipe, "POOLS", dict.fromkeys(base_recipe.POOLS, 8))
        patch.setattr(base_recipe, "BATCH", 4)
        patch.setattr(expert_recipe, "BATCH", 4)
        patch.setattr(words_recipe, "SENTENCES", 2)
        vae_recipe.make_vae(folder, replace(vae_recipe.DEFAULT, steps=3), pool=16)
        words_recipe.make_words(folder, replace(words_recipe.DEFAULT, steps=3))
        make_base(folder, replace(base_recipe.DEFAULT, steps=4))
        for name in ("erase", expert_recipe.UNIFIED):
            make_lora(name, folder, replace(expert_recipe.RECIPES[name].config, steps=4))
    return folder


def test_the_assembled_set_is_whole_and_edits(trained, tmp_path):
    made = assemble(trained, tmp_path / "set", ("erase",))
    assert made.names == ("erase",)
    assert verify_expert_set(tmp_path / "set") == ()
    editor = Editor(load_expert_set(tmp_path / "set"))
    request = EditRequest(image=Image.new("RGB", (64, 64), "red"), instruction="remove the circle", seed=1, steps=2)
    result = editor.edit(request)
    assert result.image.size == (64, 64)
    assert result.trace.routing.weights == {"erase": 1.0}


def test_a_decoder_is_trained_on_and_its_latents_stay(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = load_trained_base(run)
    vae_recipe.make_decoder(run, load_trained_base(run).vae, replace(vae_recipe.DECODER, steps=3), pool=16)
    assemble(run, tmp_path / "set", ("erase",))
    after = load_tiny_base(tmp_path / "set" / "base").vae
    canvas = vae_recipe.to_pixels(vae_recipe.draw_panels(0, 1))
    latents = before.vae.encode(canvas).latent_dist.mode()
    assert torch.equal(latents, after.encode(canvas).latent_dist.mode())
    assert not torch.equal(before.vae.decode(latents).sample, after.decode(latents).sample)
    assert verify_expert_set(tmp_path / "set") == ()


def test_a_decoder_of_another_vae_is_refused(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    vae_recipe.make_decoder(run, build_vae(), replace(vae_recipe.DECODER, steps=1), pool=16)
    with pytest.raises(CareEditError, match="another VAE"):
        assemble(run, tmp_path / "set", ("erase",))


def test_a_base_does_not_say_where_it_was_trained(trained):
    again = trained / "again"
    save_base(load_trained_base(trained), again)
    configs = list(again.glob("*/*config.json"))
    assert len(configs) >= 6
    assert not [path for path in configs if str(trained) in path.read_text("utf-8")]


def test_assembling_twice_gives_the_same_hash(trained, tmp_path):
    first = assemble(trained, tmp_path / "set", ("erase",)).sha256
    assert assemble(trained, tmp_path / "set", ("erase",)).sha256 == first


def test_the_unified_baseline_has_the_parameters_and_the_samples_of_all_experts_together(trained):
    recipes = dict(expert_recipe.RECIPES)
    unified = recipes.pop(expert_recipe.UNIFIED)
    assert unified.config.steps == sum(recipe.config.steps for recipe in recipes.values())
    assert unified.rank == sum(recipe.rank for recipe in recipes.values())
    one, all_of_them = (
        load_file(trained / "experts" / f"{name}.safetensors") for name in ("erase", expert_recipe.UNIFIED)
    )
    count = sum(value.numel() for value in one.values())
    assert sum(value.numel() for value in all_of_them.values()) == count * len(recipes)


def test_the_baseline_lies_beside_the_experts_and_is_none_of_them(trained, tmp_path):
    made = assemble(trained, tmp_path / "set", ("erase",))
    baseline = tmp_path / "set" / UNIFIED_FOLDER
    manifest = ExpertManifest.from_yaml((baseline / MANIFEST_FILE).read_text("utf-8"), MANIFEST_FILE)
    assert expert_recipe.UNIFIED not in made.names
    assert manifest.rank == expert_recipe.RECIPES[expert_recipe.UNIFIED].rank
    load_adapter(baseline / manifest.file, made.shapes, manifest=manifest)


def test_what_measures_edits_goes_along_with_the_set(trained, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(trained, runs)
    (runs / "judge").mkdir()
    (runs / "judge" / "config.json").write_text("{}")
    made = assemble(runs, tmp_path / "set", ("erase",))
    assert (tmp_path / "set/judge/config.json").read_text() == "{}"
    assert made.sha256 == assemble(trained, tmp_path / "without", ("erase",)).sha256


def test_cards_say_what_was_measured_of_expert_base_and_baseline(trained, tmp_path, capsys):
    folder = tmp_path / "set"
    assemble(trained, folder, ("erase",))
    assert main(["train", "cards", str(folder), "--out", str(trained), "--n", "1", "--threads", "1"]) == 0
    table = capsys.readouterr().out
    assert "unified LoRA" in table and "erase" in table
    base = load_trained_base(trained)
    parts = (base.transformer, base.vae, base.text_encoder, base.text_encoder_2)
    whole = sum(p.numel() for part in parts for p in part.parameters())
    for card, words in (
        (folder / "experts/erase", "The base alone: "),
        (folder / UNIFIED_FOLDER, "Edits for erase: "),
        (folder, "Edits for erase: "),
    ):
        assert f"{words}0% right" in (card / "README.md").read_text("utf-8")
        assert (card / "loss.png").is_file()
    assert f"A FluxFillPipeline of {whole / 1e6:.1f}M parameters" in (folder / "README.md").read_text("utf-8")


def test_training_an_expert_leaves_the_base_as_it_was(trained):
    base = load_trained_base(trained)
    before = {name: value.clone() for name, value in base.transformer.state_dict().items()}
    recipe = expert_recipe.RECIPES["erase"]
    state, _ = expert_recipe.train_lora("erase", recipe, base, trained, replace(recipe.config, steps=4))
    after = base.transformer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(bool(value.any()) for name, value in state.items() if "lora_B" in name)


@pytest.mark.parametrize("probes", [True, False])
def test_a_base_is_trained_on_from_a_trained_one(trained, tmp_path, probes):
    start = load_tiny_base(trained / "base")
    before = start.transformer.proj_out.weight.clone()
    config = replace(base_recipe.DEFAULT, steps=2, warmup=0)
    for part in ("pools", "words") if probes else ("pools",):
        shutil.copytree(trained / part, tmp_path / part)
    if probes:
        shutil.copy(trained / PROBE_FILE, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_module, "SHARD", 8)
        patch.setattr(base_recipe, "POOLS", dict.fromkeys(base_recipe.POOLS, 8))
        patch.setattr(base_recipe, "BATCH", 2)
        patch.setattr(base_recipe, "PROBE_STEPS", 2)
        after, report = base_recipe.train_base(start.vae, tmp_path, config, start=start)
    assert report.config.steps == 2
    assert (tmp_path / "probe-scene.ckpt").exists() == (not probes)
    assert (tmp_path / PROBE_FILE).exists() and (tmp_path / "words").is_dir()
    assert not torch.equal(after.transformer.proj_out.weight, before)
    assert not any(parameter.requires_grad for parameter in after.transformer.parameters())
