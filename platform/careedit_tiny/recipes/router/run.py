"""`careedit train router`: the learned router of the tiny family, from an encoder and, if wanted, measured outcomes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from careedit.editor import load_editor
from careedit.encoders import OpenClipEncoder
from careedit.errors import InputError
from careedit.experts import ExpertSet, install_router, transformer_spec
from careedit.finetune.curve import save_report
from careedit.routing.transformer import RouterModel
from careedit_tiny.recipes.family import COMPETENCES, LICENCE
from careedit_tiny.recipes.router.outcomes import measure_outcomes, outcome_pool
from careedit_tiny.recipes.router.pool import GROUPS, RouterPool, kept_pool, pool_of, tiny_samples
from careedit_tiny.recipes.router.report import RouterQuality, evaluate, save
from careedit_tiny.recipes.router.train import (
    DEFAULT,
    OUTCOME_GROUP,
    OUTCOMES,
    PER_GROUP,
    calibrated,
    fit,
    new_model,
    with_steps,
)
from careedit_tiny.world.samples import Split

MEASURED_PER_GROUP = 80
"""Validation and test edits per group."""
FIRST = 30_000_000
"""Index of the first training sample: other recipes' pools lie elsewhere."""


def fingerprint(encoder: OpenClipEncoder) -> str:
    """Tells encoders apart by what they make of a probe, rounded so that threads and batches do not matter."""
    probe = Image.linear_gradient("L").convert("RGB")
    tokens = (encoder.visual_tokens(probe).mean(dim=0), encoder.text_tokens("the red circle at the top")[-1])
    text = " ".join(f"{value:.2f}" for token in tokens for value in token.tolist()).replace("-0.00", "0.00")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tiny_pool(
    name: str, encoder: OpenClipEncoder, folder: Path, per_group: int, *, experts: Sequence[str] = tuple(COMPETENCES)
) -> RouterPool:
    """The pool "train", "validation" or "test" of the tiny world, kept in `folder/router-pools`."""
    split: Split = "train" if name == "train" else "validation" if name == "validation" else "test"
    first = FIRST if split == "train" else 0
    return kept_pool(
        folder / "router-pools" / f"{name}.safetensors",
        f"{fingerprint(encoder)} {split} {per_group} {' '.join(experts)}",
        lambda: pool_of(tiny_samples(split, per_group, first=first), encoder, experts),
    )


def put_into_set(runs: Path, root: Path) -> ExpertSet:
    """Copies the trained encoder and router in `runs` into the local set `root` and makes the router the set's."""
    for name in ("clip", "router"):
        if not (runs / name).is_dir():
            raise InputError(f"There is no trained {name} in {runs}; run 'careedit train {name}' first.")
        shutil.rmtree(root / name, ignore_errors=True)
        shutil.copytree(runs / name, root / name)
    return install_router(root, transformer_spec(root))


def train_router(
    folder: Path,
    encoder: OpenClipEncoder,
    *,
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
    pool = tiny_pool("train", encoder, folder, per_group)
    model = new_model(encoder, tuple(COMPETENCES))
    # A checkpoint is of one encoder, so its name says which.
    read = fingerprint(encoder)
    report = fit(f"router-{read}", model, encoder, pool, with_steps(DEFAULT, steps), folder)
    extra = {}
    if outcomes_of is not None:
        editor = load_editor(outcomes_of)
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
        )
        changed = float((learned.targets.amax(dim=-1) < 1).double().mean())
        extra["Second stage"] = (
            f"{second.config.steps} steps on {len(learned)} measured training edits; for {changed:.0%} of them another "
            "expert than the kind's did better"
        )
    calibrated(model, encoder, tiny_pool("validation", encoder, folder, measured))
    quality = evaluate(model, encoder, tiny_pool("test", encoder, folder, measured))
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
