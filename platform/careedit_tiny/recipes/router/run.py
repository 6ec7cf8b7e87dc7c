"""The learned router of the tiny family: labels of kind first, then, if wanted, measured outcomes, then calibration."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from careedit.editor import load_editor
from careedit.encoders import OpenClipEncoder, load_encoder
from careedit.errors import InputError
from careedit.experts import ExpertSet, install_router, transformer_spec
from careedit.finetune.curve import save_report
from careedit.finetune.loop import TrainConfig
from careedit.finetune.precision import training_device
from careedit.finetune.router.fit import OUTCOME_GROUP, calibrated, fit, with_steps
from careedit.finetune.router.quality import RouterQuality, evaluate, save
from careedit.finetune.router.teach import Rehearsal
from careedit.routing.transformer import RouterConfig, RouterModel
from careedit_tiny.recipes.family import COMPETENCES, LICENCE
from careedit_tiny.recipes.router.outcomes import measure_outcomes, outcome_pool
from careedit_tiny.recipes.router.pool import GROUPS, drawn_pool, fingerprint
from careedit_tiny.recipes.router.words import in_other_words

DEFAULT = TrainConfig(steps=1500, learning_rate=1e-3, warmup=100, weight_decay=0.02, betas=(0.9, 0.98), ema=0.995)
OUTCOMES = TrainConfig(steps=300, learning_rate=2e-4, warmup=30, weight_decay=0.02, betas=(0.9, 0.98), ema=0.99)
"""Settings of the second stage, on measured outcomes."""
PER_GROUP = 600
"""Training edits per group of `GROUPS`."""
MEASURED_PER_GROUP = 80
"""Validation edits, and test edits, per group of `GROUPS`."""
REHEARSAL = 200
"""Edits per group that a router rehearses when it learns a new expert."""


def new_model(encoder: OpenClipEncoder, experts: Sequence[str], *, seed: int = 0) -> RouterModel:
    """An untrained router for these experts, of 2 layers and 8 heads."""
    config = RouterConfig(
        experts=tuple(experts),
        encoder_width=encoder.width,
        visual_tokens=encoder.visual_count,
        text_tokens=int(encoder.model.context_length),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RouterModel(config)


def train_command(
    out: Path, encoder: str | None, steps: int | None, outcomes_of: str | None, outcomes: int
) -> RouterQuality:
    """Train as `RouterRecipe.train`: with the CLIP in `out` unless another encoder is named."""
    if encoder is None and not (out / "clip").is_dir():
        raise InputError(f"{out / 'clip'} has no encoder; run 'careedit train clip' first, or name one with --encoder.")
    loaded = load_encoder(encoder or out / "clip", device=training_device())
    return train_router(out, loaded, steps=steps, outcomes_of=outcomes_of, outcomes=outcomes)[1]


def rehearsal(
    known: Sequence[str], encoder: OpenClipEncoder, folder: Path, per_group: int = REHEARSAL
) -> Rehearsal | None:
    """Drawn edits for a router whose experts are all of the tiny family; None for any other router."""
    if not set(known) <= set(COMPETENCES):
        return None
    shown = drawn_pool("train", encoder, folder, per_group, experts=known)
    measured = drawn_pool("validation", encoder, folder, max(5, per_group // 5), experts=known)
    return Rehearsal(shown, measured, GROUPS, in_other_words)


def put_into_set(runs: Path, root: Path) -> ExpertSet:
    """Copies the trained encoder and router in `runs` into the local set `root` and makes the router the set's."""
    for name in ("clip", "router"):
        if not (runs / name).is_dir():
            raise InputError(f"{runs} has no trained {name}; run 'careedit train {name}' first.")
        shutil.rmtree(root / name, ignore_errors=True)
        shutil.copytree(runs / name, root / name)
    return install_router(root, transformer_spec(root))


def train_router(
    folder: Path,
    encoder: OpenClipEncoder,
    *,
    config: TrainConfig | None = None,
    steps: int | None = None,
    per_group: int = PER_GROUP,
    measured: int = MEASURED_PER_GROUP,
    outcomes_of: str | None = None,
    outcomes: int = 240,
    outcome_steps: int | None = None,
) -> tuple[RouterModel, RouterQuality]:
    """Train, calibrate, measure on the test split, and write `folder/router`.

    `outcomes_of` is an expert set whose edits of `outcomes` training samples teach a second stage; None leaves it out.
    Stopped at any moment, a rerun with the same arguments goes on and ends with the same weights.
    """
    pool = drawn_pool("train", encoder, folder, per_group)
    model = new_model(encoder, tuple(COMPETENCES))
    # A checkpoint is of one encoder, so its name says which.
    read = fingerprint(encoder)
    report = fit(
        f"router-{read}",
        model,
        encoder,
        pool,
        with_steps(config or DEFAULT, steps),
        folder,
        groups=GROUPS,
        rephrase=in_other_words,
    )
    extra = {}
    if outcomes_of is not None:
        editor = load_editor(outcomes_of, device=training_device())
        found = measure_outcomes(editor, outcomes, folder / "outcomes.jsonl")
        learned = outcome_pool(found, encoder, model.config.experts)
        groups = (*GROUPS, *(OUTCOME_GROUP,) * (len(GROUPS) // 2))
        second = fit(
            f"router-{read}-outcomes-{editor.expert_set.sha256[:8]}",
            model,
            encoder,
            pool.plus(learned),
            with_steps(OUTCOMES, outcome_steps),
            folder,
            groups=groups,
            rephrase=in_other_words,
        )
        changed = float((learned.targets.amax(dim=-1) < 1).double().mean())
        extra["Second stage"] = (
            f"{second.config.steps} steps on {len(learned)} measured training edits; for {changed:.0%} of them another "
            "expert than the kind's did better"
        )
    calibrated(model, encoder, drawn_pool("validation", encoder, folder, measured))
    quality = evaluate(model, encoder, drawn_pool("test", encoder, folder, measured))
    save_report(report, folder / "router.json")
    save(
        model,
        report,
        folder / "router",
        quality,
        licence=LICENCE,
        recipe="careedit train router",
        data=f"{len(pool):,} edits of the tiny world's training split, seen phrasings only, said in other words each time; "
        "calibrated on the validation split.",
        extra=extra,
    )
    return model, quality
