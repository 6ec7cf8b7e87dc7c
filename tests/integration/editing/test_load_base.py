"""Loading a base: an ordinary diffusers pipeline folder, or a sentence saying what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxFillPipeline

from careedit.editing import Engine, FluxFill, load_base
from careedit.errors import ExpertError
from careedit.experts.applier import NoExperts
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH, build_transformer


@pytest.fixture(scope="module")
def saved(tiny_pipeline, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    tiny_pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of the base to damage."""
    return Path(shutil.copytree(saved, tmp_path / "base"))


@pytest.mark.parametrize("kind", [str, Path])
def test_a_loaded_folder_edits_as_the_pipeline_it_was_saved_from(kind, saved, engine, make_job, run_to_end):
    base = load_base(kind(saved), max_sequence_length=MAX_SEQUENCE_LENGTH)
    (loaded,) = run_to_end(Engine(base, NoExperts(base.transformer)), make_job(steps=2))
    (original,) = run_to_end(engine, make_job(steps=2))

    assert torch.equal(loaded.latents, original.latents)
    assert (base.vae_scale, base.latent_channels, base.multiple, base.guidance) == (4, 8, 8, "none")


def test_the_number_format_can_be_chosen_and_edits(saved, make_job, run_to_end):
    base = load_base(saved, max_sequence_length=MAX_SEQUENCE_LENGTH, dtype=torch.bfloat16)
    engine = Engine(base, NoExperts(base.transformer))
    (state,) = run_to_end(engine, make_job(steps=2, masked=True))

    assert base.dtype == state.latents.dtype == torch.bfloat16
    assert engine.finish(state).size == (64, 64)


def test_bfloat16_equals_the_stock_pipeline_too(saved, make_job, run_to_end, stock):
    base = load_base(saved, max_sequence_length=MAX_SEQUENCE_LENGTH, dtype=torch.bfloat16)
    pipe = FluxFillPipeline.from_pretrained(saved, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    job = make_job(steps=3, masked=True)
    (state,) = run_to_end(Engine(base, NoExperts(base.transformer)), job)

    assert torch.equal(state.latents, stock(pipe, job, "latent"))


@pytest.mark.parametrize("name", ["/no/such/base", "no-such-base", "./a/b/c", Path("no/base")])
def test_a_missing_folder_is_named(name):
    with pytest.raises(ExpertError, match=r"The base folder '.*(base|a/b/c)' does not exist"):
        load_base(name)


def test_a_hub_id_that_cannot_be_had_is_named():
    with pytest.raises(ExpertError, match="'nobody/nothing' is not a folder, and the hub does not have it"):
        load_base("nobody/nothing")


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path):
    with pytest.raises(ExpertError, match=r"has no readable model_index\.json"):
        load_base(tmp_path)


def test_another_kind_of_pipeline_is_refused(folder):
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}), "utf-8")

    with pytest.raises(
        ExpertError, match="is a FluxPipeline; the pipelines that work are FluxFillPipeline, FluxKontextPipeline"
    ):
        load_base(folder)


@pytest.mark.parametrize("entry", [None, ["subprocess", "Popen"], "AutoencoderKL"])
def test_an_index_that_names_other_code_is_refused(folder, entry):
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    (folder / "model_index.json").write_text(json.dumps({**index, "vae": entry}), "utf-8")

    with pytest.raises(ExpertError, match="names no vae from diffusers or transformers"):
        load_base(folder)


def damage_weights(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"not a tensor")


def drop_component(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder_2")


def swap_for_pickle(folder: Path) -> None:
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()


@pytest.mark.parametrize("damage", [damage_weights, drop_component, swap_for_pickle])
def test_a_damaged_or_missing_component_is_one_sentence(folder, damage):
    damage(folder)

    with pytest.raises(ExpertError, match="could not be loaded, a component is missing or damaged") as caught:
        load_base(folder, max_sequence_length=MAX_SEQUENCE_LENGTH)
    assert "\n" not in str(caught.value)


class Parts:
    """A pipeline's components, some replaced."""

    def __init__(self, pipe: FluxFillPipeline, **replaced: object) -> None:
        self.__dict__.update({**pipe.components, **replaced})


@pytest.mark.parametrize(
    ("replaced", "says"),
    [
        (lambda: {"vae": None}, "vae is a NoneType"),
        (lambda: {"transformer": None}, "transformer is a NoneType"),
        (lambda: {"text_encoder_2": build_transformer()}, "text_encoder_2 is a FluxTransformer2DModel"),
        (lambda: {"vae": AutoencoderKL(shift_factor=0.0)}, "takes 128 channels, but with its vae"),
        (lambda: {"vae": AutoencoderKL(latent_channels=8)}, "no shift_factor"),
        (lambda: {"scheduler": FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)}, "sets stochastic_sampling"),
    ],
)
def test_a_component_that_does_not_belong_is_named(tiny_pipeline, replaced, says):
    with pytest.raises(ExpertError, match=says):
        FluxFill.from_pipeline(Parts(tiny_pipeline, **replaced()))


@pytest.mark.parametrize("length", [0, 513])
def test_an_impossible_sequence_length_is_refused(tiny_pipeline, length):
    with pytest.raises(ExpertError, match=f"max_sequence_length is {length}"):
        FluxFill.from_pipeline(tiny_pipeline, max_sequence_length=length)
