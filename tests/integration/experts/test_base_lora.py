"""A LoRA that is part of a set's base: edits equal the stock pipeline's with that LoRA fused, alone and under experts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from careedit.cli.main import main
from careedit.editor import Editor
from careedit.errors import ExpertError, InputError
from careedit.experts import Defaults, PanelSpec, load_expert_set
from careedit.experts.manifest import BaseLora, SchedulerSettings
from careedit.experts.set import ExpertSet
from careedit.files import file_digest
from lora_files import edit, engine, load_as_diffusers, own, several_ranks, shapes_of_pipe, write
from random_sets import make_random_set

pytestmark = pytest.mark.usefixtures("small_bases_only")

LIGHTNING = {
    "base_image_seq_len": 256,
    "base_shift": math.log(3),
    "max_image_seq_len": 8192,
    "max_shift": math.log(3),
    "shift": 1.0,
    "shift_terminal": None,
    "time_shift_type": "exponential",
    "use_dynamic_shifting": True,
}
"""The scheduler of the 4-step and 8-step Lightning LoRAs of Qwen-Image-Edit, as their example code has it."""


def make_set(folder: Path, pipe: Any) -> Path:
    """A set whose expert changes attention and the layers that Qwen 2511 shows every row twice."""
    return make_random_set(
        folder,
        pipe,
        {"erase": ("remove",)},
        length=1024 if "qwen" in folder.name else 512,
        panel=PanelSpec(size=64, fit="bucket", multiple=32),
        defaults=Defaults(steps=3),
        ends=("to_q", "img_mod.1"),
    )


def change_base(folder: Path, **fields: Any) -> ExpertSet:
    spec = load_expert_set(folder).spec
    spec.model_copy(update={"base": spec.base.model_copy(update=fields)}).write(folder / "expert_set.yaml")
    return load_expert_set(folder)


def with_lora(folder: Path, pipe: Any) -> ExpertSet:
    """The set with a LoRA on every linear layer of its base and Lightning's scheduler."""
    path = write(folder / "lightning.safetensors", several_ranks(shapes_of_pipe(pipe)))
    settings = {name: 0.0 if value is None else value for name, value in LIGHTNING.items()}
    lora = BaseLora(file=path.name, sha256=file_digest(path))
    return change_base(folder, lora=lora, scheduler=SchedulerSettings(**settings))


@pytest.mark.parametrize("name", ["qwen 2509", "qwen 2511"])
def test_edits_equal_the_stock_pipelines_with_the_lora_fused(
    name: str, bases: Callable[[str], Any], tmp_path: Path
) -> None:
    pipe = bases(name)
    loaded = with_lora(make_set(tmp_path / name.replace(" ", "-"), pipe), pipe)
    jobs = [
        edit(number, instruction="make it red", weights=weights, guidance=1.0)
        for number, weights in enumerate(({"base": 1.0}, {"erase": 1.0}))
    ]
    expected = []
    for job in jobs:
        stock = own(pipe)
        stock.scheduler = FlowMatchEulerDiscreteScheduler.from_config(LIGHTNING)
        load_as_diffusers(stock, tmp_path / name.replace(" ", "-") / "lightning.safetensors")
        stock.fuse_lora()
        stock.unload_lora_weights()
        if "erase" in job.weights:
            load_as_diffusers(stock, loaded.adapter_path("erase"))
        arguments = {"image": job.source, "prompt": job.instruction, "true_cfg_scale": 1.0, "height": 64, "width": 64}
        generator = torch.Generator("cpu").manual_seed(job.seed)
        stock.set_progress_bar_config(disable=True)
        expected.append(stock(**arguments, num_inference_steps=3, generator=generator, output_type="latent").images)
        plain = engine(own(pipe))
        state = plain.prepare(replace(job, weights={"base": 1.0}))
        plain.advance([state])
        assert (state.latents - expected[-1]).abs().max() > 1e-2
    for application in ("merged", "shared"):
        own_engine = Editor(loaded, device="cpu", application=application).engine
        states = [own_engine.prepare(job) for job in jobs]
        own_engine.advance(states)
        for state, latents in zip(states, expected, strict=True):
            torch.testing.assert_close(state.latents, latents, rtol=0.0, atol=1e-4)
    merged = own_engine.base.transformer
    fp8 = Editor(loaded, device="cpu", application="shared", quantisation="fp8").engine.base.transformer
    layer, plain = (one.get_submodule("transformer_blocks.1.img_mlp.net.2") for one in (fp8, merged))
    x = torch.eye(plain.in_features)
    assert (layer(x) - plain(x)).norm() < 0.05 * plain(x).norm()  # the LoRA is in the weights that are quantised


def test_lora_and_scheduler_are_checked_and_enter_the_hash_of_the_set(
    bases: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = bases("qwen 2511")
    folder = make_set(tmp_path / "qwen", pipe)
    plain = load_expert_set(folder)
    assert "lora" not in (folder / "expert_set.yaml").read_text()
    changed = with_lora(folder, pipe)
    lora = changed.spec.base.lora
    assert lora is not None and changed.names == plain.names  # an expert of the base fits it with its LoRA too
    hashes = {plain.sha256, changed.sha256, change_base(folder, lora=None).sha256}
    (folder / "lightning.safetensors").rename(folder / "renamed.safetensors")
    renamed = change_base(folder, lora=lora.model_copy(update={"file": "renamed.safetensors"}))
    assert len(hashes) == 3 and renamed.sha256 == changed.sha256
    assert main(["experts", "verify", "--expert-set", str(folder)]) == 0

    write(folder / "renamed.safetensors", several_ranks(shapes_of_pipe(bases("klein"))))
    capsys.readouterr()
    assert main(["experts", "verify", "--expert-set", str(folder)]) == 1
    assert "base-lora" in capsys.readouterr().out
    with pytest.raises(ExpertError, match="was made for flux2-klein"):
        Editor(load_expert_set(folder), device="cpu")
    write(folder / "renamed.safetensors", several_ranks(shapes_of_pipe(pipe)) | {"x": torch.ones(1)})
    with pytest.raises(ExpertError, match=r"renamed\.safetensors"):
        Editor(load_expert_set(folder), device="cpu")
    other = {key: 2 * value for key, value in several_ranks(shapes_of_pipe(pipe)).items()}
    write(folder / "renamed.safetensors", other)
    with pytest.raises(ExpertError, match="the set's file says"):
        Editor(load_expert_set(folder), device="cpu")


def test_a_scheduler_setting_that_has_no_effect_on_the_base_is_refused(
    bases: Callable[[str], Any], tmp_path: Path
) -> None:
    folder = make_set(tmp_path / "klein", bases("klein"))
    loaded = change_base(folder, scheduler=SchedulerSettings(base_shift=1.0))
    with pytest.raises(ExpertError, match="scheduler setting base_shift has no effect; remove it"):
        Editor(loaded, device="cpu")


def test_one_step_is_refused_where_the_schedule_is_stretched(bases: Callable[[str], Any]) -> None:
    with pytest.raises(InputError, match="cannot edit in one step"):
        engine(bases("qwen 2511")).check(edit(steps=1))
    assert engine(bases("klein")).check(edit(steps=1)) is None
