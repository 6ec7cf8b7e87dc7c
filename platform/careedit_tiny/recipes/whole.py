"""The whole tiny family from nothing, within a budget of minutes.

The order lets each stage use what it needs, and gives a set that edits as early as possible: routers, judges and metrics
come after the experts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from careedit.editor import load_editor
from careedit.encoders import load_encoder
from careedit.errors import CareEditError
from careedit.files import write_atomic
from careedit.finetune.loop import TrainConfig, TrainReport
from careedit.finetune.precision import training_device
from careedit_tiny.recipes.base.probe import PROBE_FILE
from careedit_tiny.recipes.base.train import DEFAULT as BASE
from careedit_tiny.recipes.base.train import base_to, build_pools, untrained
from careedit_tiny.recipes.base.words import DEFAULT as WORDS
from careedit_tiny.recipes.base.words import make_words
from careedit_tiny.recipes.clip.train import DEFAULT as CLIP
from careedit_tiny.recipes.clip.train import make_clip
from careedit_tiny.recipes.dino.report import make_dino
from careedit_tiny.recipes.dino.train import DEFAULT as DINO
from careedit_tiny.recipes.experts import RECIPES, UNIFIED
from careedit_tiny.recipes.family import assemble, finished, load_vae, make_base, make_lora
from careedit_tiny.recipes.judge.report import make_judge
from careedit_tiny.recipes.judge.train import DEFAULT as JUDGE
from careedit_tiny.recipes.router.run import DEFAULT as ROUTER
from careedit_tiny.recipes.router.run import put_into_set, train_router
from careedit_tiny.recipes.vae import DECODER, HALF, make_decoder, make_half, make_vae
from careedit_tiny.recipes.vae import DEFAULT as VAE

SET = "set"
"""Folder of the expert set that the judge learns from."""
PLAN = "plan.json"
"""Name of the file with a budget's steps, so that a rerun uses the same ones."""
PARTS = ("half", "vae", "decoder", "words", "base", "pools", "experts", "clip", "router", "router-pools", "judge-pool")
"""Names of the results and the data that later stages use."""
PROBE_STEPS = 8
"""Steps that are timed to find out how long one takes."""

Run = Callable[[Path, TrainConfig], TrainReport]
"""Train in a folder of runs and leave the result there."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One recipe of the family."""

    name: str
    """Name of its report: NAME.json."""
    share: float
    """Share of the budget's training time."""
    config: TrainConfig
    """Settings; the steps are those of a family at full quality, or what the budget allows if that is less."""
    run: Run
    """Trains the stage in a folder."""


def _lora(name: str, out: Path, config: TrainConfig) -> TrainReport:
    return make_lora(name, out, config)[1]


def _router(out: Path, config: TrainConfig) -> TrainReport:
    train_router(out, load_encoder(out / "clip"), steps=config.steps)
    return TrainReport.load(out / "router.json")


def _judge(out: Path, config: TrainConfig) -> TrainReport:
    """With the edits of the set that the stages before have made."""
    assemble(out, out / SET)
    put_into_set(out, out / SET)
    return make_judge(out, config, editor=load_editor(str(out / SET)))[0]


def stages() -> tuple[Stage, ...]:
    """The recipes in the order in which they are trained."""
    loras = sum(recipe.config.steps for recipe in RECIPES.values())
    return (
        Stage("half", 0.03, HALF, make_half),
        Stage("vae", 0.1, VAE, lambda out, config: make_vae(out, config)[0]),
        Stage("decoder", 0.03, DECODER, lambda out, config: make_decoder(out, load_vae(out), config)[0]),
        Stage("words", 0.02, WORDS, make_words),
        Stage("base", 0.3, BASE, make_base),
        *(
            Stage(f"expert-{name}", 0.3 * recipe.config.steps / loras, recipe.config, partial(_lora, name))
            for name, recipe in RECIPES.items()
        ),
        Stage("clip", 0.05, CLIP, lambda out, config: make_clip(out, config)[0]),
        Stage("router", 0.02, ROUTER, _router),
        Stage("judge", 0.1, JUDGE, _judge),
        Stage("dino", 0.05, DINO, lambda out, config: make_dino(out, config)[0]),
    )


def read_plan(out: Path, minutes: float) -> dict[str, int]:
    """Steps per stage that an earlier run with this budget settled on."""
    path = out / PLAN
    if not path.exists():
        return {}
    plan = json.loads(path.read_text("utf-8"))
    if plan.get("minutes") != minutes:
        known = plan.get("minutes", 60 * plan.get("hours", 0))
        raise CareEditError(
            f"{path} is the plan of a run with a budget of {known:g} minutes; give that budget again to go on with it, or "
            "train into another folder."
        )
    return dict(plan["steps"])


def write_plan(out: Path, minutes: float, steps: Mapping[str, int]) -> None:
    """Remember the steps."""
    plan = json.dumps({"version": 2, "minutes": minutes, "steps": dict(steps)}, indent=1)
    write_atomic(out / PLAN, plan.encode("utf-8"))


def seconds_per_step(stage: Stage, out: Path) -> float:
    """Time a few steps in a folder of their own, with the parts that are trained already."""
    with TemporaryDirectory(dir=out, prefix=".timing-") as name:
        trial = Path(name)
        for part in (*PARTS, PROBE_FILE):
            if part != stage.name and (out / part).exists():
                (trial / part).symlink_to((out / part).resolve())

        def run(steps: int) -> float:
            for checkpoint in trial.glob("*.ckpt"):
                checkpoint.unlink()
            return stage.run(trial, replace(stage.config, steps=steps)).seconds

        run(1)  # draws what it trains on, and warms up
        # By the loop's own clock: what a recipe draws and measures around it takes longer than a few steps, and varies.
        return max(1e-3, run(PROBE_STEPS) / PROBE_STEPS)


def train_all(out: Path, minutes: float, *, note: Callable[[str], None] = lambda _: None) -> None:
    """Train every part that `out` lacks. A run that was stopped continues where it was.

    A stage's steps are those of its recipe, or as many as its share of the budget has room for.
    """
    out.mkdir(parents=True, exist_ok=True)
    steps = read_plan(out, minutes)
    for stage in stages():
        if finished(stage.name, out) is not None:
            continue
        if stage.name == "base":
            build_pools(base_to(untrained(load_vae(out)), training_device()), out / "pools")
        if stage.name not in steps:
            if stage.name == f"expert-{UNIFIED}":  # as many samples as all experts together, whatever the budget
                steps[stage.name] = sum(count for name, count in steps.items() if name.startswith("expert-"))
            else:
                budget = minutes * 60 * stage.share
                steps[stage.name] = max(1, min(stage.config.steps, int(budget / seconds_per_step(stage, out))))
            write_plan(out, minutes, steps)
        note(f"{stage.name}: {steps[stage.name]:,} steps.")
        stage.run(out, replace(stage.config, steps=steps[stage.name]))
