"""The whole tiny family, from nothing: VAE, pools, base, experts, and the expert set that ships in the package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import FluxFillPipeline
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from careedit.editing import FluxFill, load_base
from careedit.editing.families import as_fill
from careedit.errors import CareEditError
from careedit.experts import (
    UNIFIED_FOLDER,
    BaseSpec,
    Defaults,
    ExpertSet,
    ExpertSetFile,
    PanelSpec,
    RouterSpec,
    add_expert,
    create_expert_set,
    load_expert_set,
    make_manifest,
    save_adapter,
    shapes_of_base,
)
from careedit.experts.manifest import MANIFEST_FILE
from careedit.files import folder_digest
from careedit.finetune.curve import check_curve, save_report
from careedit.finetune.loop import TrainConfig, TrainReport
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH, PANEL
from careedit_tiny.recipes.base.train import START, train_base
from careedit_tiny.recipes.experts import RECIPES, UNIFIED, train_lora

LICENCE = "Apache-2.0"
STEPS = 8
"""Default denoising steps of the tiny set."""
EDIT_NOISE_SCALE = 0.1
"""Its default spread of noise, chosen on validation scenes (docs/notebook.md)."""


@dataclass(frozen=True, slots=True)
class Competence:
    """What an expert is for, as its manifest says it."""

    description: str
    """What the expert does, in one sentence."""
    handles: tuple[str, ...]
    """Kinds of edits and conditions that it handles."""


COMPETENCES: Mapping[str, Competence] = {
    "erase": Competence("Removes an object and fills in the background behind it.", ("remove", "mask")),
    "compose": Competence(
        "Adds, replaces, moves, turns, counts, recolours and resizes objects.",
        ("add", "replace", "action", "counting", "relation", "attribute", "mask"),
    ),
    "style": Competence("Changes the look of the whole picture or its background.", ("style", "background")),
    "identity": Competence("Changes the look of the picture while a named object stays as it is.", ("identity",)),
    "reference": Competence("Takes a colour, a texture, an object or a look from a reference.", ("reference",)),
}
"""The five experts of the tiny set."""
BASELINE = Competence(
    "One LoRA for every kind of edit, of all experts' parameters: what routing has to beat.", ("any",)
)
"""The unified LoRA, in the set's `UNIFIED_FOLDER`. It is not an expert of the set."""
COMPANIONS = ("clip", "judge", "dino")
"""Models that measure edits. Those that are trained are copied into the set, each in its own folder."""


def save_base(base: FluxFill, folder: Path) -> None:
    """Write an ordinary diffusers pipeline folder; the transformer in float16, which halves the package."""
    components = {
        name: getattr(base, name)
        for name in ("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    }
    transformer = cast(Any, base.transformer)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        cast(Any, FluxFillPipeline)(**components, transformer=transformer.half()).save_pretrained(folder)
    finally:
        transformer.float()
    remove_origin(folder)


def remove_origin(folder: Path) -> None:
    """Remove from the configurations the local path that each part was loaded from."""
    for path in folder.glob("*/*config.json"):
        config = json.loads(path.read_text("utf-8"))
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def finished(name: str, folder: Path) -> TrainReport | None:
    """The report of a recipe that has run to its end in `folder`, or None."""
    path = folder / f"{name}.json"
    return TrainReport.load(path) if path.exists() else None


def load_vae(folder: Path) -> AutoencoderKL:
    """The VAE that `careedit train decoder` or, before that, `careedit train vae` left in `folder`."""
    path = next((path for name in ("decoder", "vae") if (path := folder / name).is_dir()), None)
    if path is None:
        raise CareEditError(f"{folder} has no trained VAE; run 'careedit train vae' first.")
    vae: AutoencoderKL = cast(Any, AutoencoderKL).from_pretrained(path)
    vae.eval().requires_grad_(False)
    return vae


def load_trained_base(folder: Path) -> FluxFill:
    """The base that `careedit train base` left in `folder`."""
    if not (folder / "base").is_dir():
        raise CareEditError(f"{folder} has no trained base; run 'careedit train base' first.")
    return load_tiny_base(folder / "base")


def with_decoder(base: FluxFill, folder: Path) -> FluxFill:
    """The base with the decoder that `careedit train decoder` left in `folder`, if it did.

    Raises `CareEditError` for the decoder of another VAE: its latents mean something else to the base.
    """
    if not (folder / "decoder").is_dir():
        return base
    vae = load_vae(folder)
    before, after = (cast(Any, one).encoder.state_dict() for one in (base.vae, vae))
    if any(not torch.equal(before[name], value) for name, value in after.items()):
        raise CareEditError(f"{folder / 'decoder'} reads the latents of another VAE than the base's; train it again.")
    return replace(base, vae=vae)


def load_tiny_base(folder: Path) -> FluxFill:
    """A base of the tiny architecture on the CPU, in float32, e.g. the one in the package to train on from."""
    return as_fill(load_base(folder, max_sequence_length=MAX_SEQUENCE_LENGTH, device="cpu", dtype=torch.float32))


def make_base(folder: Path, config: TrainConfig, start: FluxFill | None = None) -> TrainReport:
    """Train the base on the VAE in `folder`, or on from `start`; it and its report are left in `folder`."""
    check_curve()
    base, report = train_base(load_vae(folder) if start is None else start.vae, folder, config, start=start)
    save_base(base, folder / "base")
    save_report(report, folder / "base.json")
    return report


def make_lora(name: str, folder: Path, config: TrainConfig) -> tuple[Path, TrainReport]:
    """Train one of `RECIPES` on the base in `folder`; the adapter, whose path is returned, and its report stay there."""
    check_curve()
    recipe = RECIPES[name]
    state, report = train_lora(name, recipe, load_trained_base(folder), folder, config)
    save_report(report, folder / f"expert-{name}.json")
    return save_expert(name, state, recipe.rank, folder), report


def save_expert(name: str, state: Mapping[str, torch.Tensor], rank: int, folder: Path) -> Path:
    """Write a trained adapter, in float16, to `folder/experts/NAME.safetensors`."""
    path = folder / "experts" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_adapter(path, {key: value.half() for key, value in state.items()}, rank, float(rank))
    return path


def assemble(folder: Path, out: Path, names: Sequence[str] = tuple(COMPETENCES)) -> ExpertSet:
    """Put the trained parts of `folder` together as the expert set `out` (replaced as a whole if it is there).

    The unified LoRA, if it has been trained, goes to `UNIFIED_FOLDER` in the same form as an expert; `COMPANIONS` go
    along as they are.
    """
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(folder / "base", fresh / "base")
    if (folder / "decoder").is_dir():
        cast(Any, with_decoder(load_trained_base(folder), folder).vae).save_pretrained(fresh / "base" / "vae")
        remove_origin(fresh / "base")
    shapes = shapes_of_base(str(fresh / "base"))
    create_expert_set(
        fresh,
        ExpertSetFile(
            name="tiny",
            version="0.1",
            description="The embedded default: edits drawn scenes of the tiny world, not photographs.",
            base=BaseSpec(
                path="./base",
                max_sequence_length=MAX_SEQUENCE_LENGTH,
                fingerprint=shapes.fingerprint,
                sha256=folder_digest(fresh / "base"),
            ),
            panel=PanelSpec(size=PANEL, fit="letterbox", multiple=8),
            defaults=Defaults(steps=STEPS, start=START, noise_scale=EDIT_NOISE_SCALE),
            router=RouterSpec(kind="rules"),
            application="shared",
        ),
    )
    if not names:
        raise CareEditError("An expert set needs at least one expert; name some.")
    baselines = (UNIFIED,) if (folder / "experts" / f"{UNIFIED}.safetensors").exists() else ()
    for name in (*names, *baselines):
        adapter = folder / "experts" / f"{name}.safetensors"
        if not adapter.exists():
            raise CareEditError(f"{folder} has no trained expert {name}; run 'careedit train expert {name}' first.")
        report = json.loads((folder / f"expert-{name}.json").read_text("utf-8"))
        competence = BASELINE if name == UNIFIED else COMPETENCES[name]
        manifest = make_manifest(
            adapter,
            shapes,
            name=name,
            competence=name,
            description=competence.description,
            handles=competence.handles,
            base_name="careedit tiny base 0.1",
            licence=LICENCE,
            provenance=f"careedit train expert {name}: {report['config']['steps']} steps, tiny world, train split.",
        )
        if name == UNIFIED:
            baseline = fresh / UNIFIED_FOLDER
            baseline.mkdir(parents=True)
            shutil.copyfile(adapter, baseline / manifest.file)
            manifest.write(baseline / MANIFEST_FILE)
        else:
            add_expert(fresh, manifest, adapter)
    for name in COMPANIONS:
        if (folder / name).is_dir():
            shutil.copytree(folder / name, fresh / name)
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return load_expert_set(out)
