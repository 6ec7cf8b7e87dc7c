"""The whole tiny family from nothing, within a budget of minutes on one device.

The order lets each stage use what it needs, and gives a set that edits as early as possible: routers, judges and metrics
come after the experts. A stage is planned when its turn comes: from the time of its steps, and from the minutes that are left
after all that was drawn, trained and measured before it. So a plan holds on any device.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from careedit.editor import load_editor
from careedit.encoders import load_encoder
from careedit.errors import CareEditError
from careedit.files import write_atomic
from careedit.finetune.loop import TrainConfig, TrainReport, timing
from careedit.finetune.precision import training_device
from careedit.finetune.router.fit import with_steps
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
from careedit_tiny.recipes.judge.train import EDITS, SAMPLES
from careedit_tiny.recipes.router.run import DEFAULT as ROUTER
from careedit_tiny.recipes.router.run import put_into_set, train_router
from careedit_tiny.recipes.vae import DECODER, HALF, make_decoder, make_half, make_vae
from careedit_tiny.recipes.vae import DEFAULT as VAE

SET = "set"
"""Folder of the expert set that the judge learns from."""
PLAN = "plan.json"
"""Name of the file with a budget's steps, so that a rerun uses the same ones."""
PROBE_STEPS = 8
"""Steps that are timed to find out how long one takes."""
MEASURING = 0.05
"""Share of the budget for what is measured after a training, which no plan can foresee."""
MOST_BATCHES, DOUBLED = 16, 1.4
"""Maximum of `TrainConfig.batches`, and the time of a step with twice the batch, as a multiple, from which it is too slow."""
JUDGED_MINUTES = 60
"""Budget below which the judge learns from fewer samples, in proportion: drawing and judging them takes minutes."""

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
    train_router(out, load_encoder(out / "clip", device=training_device()), config=config)
    return TrainReport.load(out / "router.json")


def _judge(minutes: float, out: Path, config: TrainConfig) -> TrainReport:
    """With the edits of the set that the stages before have made."""
    assemble(out, out / SET)
    put_into_set(out, out / SET)
    editor = load_editor(str(out / SET), device=training_device())
    samples, edits = (int(count * min(1.0, minutes / JUDGED_MINUTES)) or 1 for count in (SAMPLES, EDITS))
    return make_judge(out, config, samples=samples, editor=editor, edits=edits)[0]


def stages(minutes: float) -> tuple[Stage, ...]:
    """The recipes in the order in which they are trained, for a budget of minutes."""
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
        Stage("judge", 0.1, JUDGE, partial(_judge, minutes)),
        Stage("dino", 0.05, DINO, lambda out, config: make_dino(out, config)[0]),
    )


@dataclass(slots=True)
class Plan:
    """What a budget became; a rerun goes on with it."""

    minutes: float
    """Minutes for everything: drawing, training and measuring."""
    steps: dict[str, int] = field(default_factory=dict[str, int])
    """Steps of every stage planned so far."""
    batches: dict[str, int] = field(default_factory=dict[str, int])
    """`TrainConfig.batches` of the same stages; 1 for a stage that is missing."""
    seconds: float = 0.0
    """Wall-clock seconds spent so far, summed over all parts of a run."""

    @classmethod
    def read(cls, out: Path, minutes: float) -> Plan:
        """The plan that an earlier run left in `out`, or a new one. Raises `CareEditError` if its budget is another."""
        path = out / PLAN
        if not path.exists():
            return cls(minutes)
        known = json.loads(path.read_text("utf-8"))
        known.pop("version")
        if known["minutes"] != minutes:
            raise CareEditError(
                f"{path} is the plan of a run with a budget of {known['minutes']:g} minutes; give that budget again to go on "
                "with it, or train into another folder."
            )
        return cls(**known)

    def write(self, out: Path) -> None:
        """Write it to `out`."""
        write_atomic(out / PLAN, json.dumps({"version": 2, **asdict(self)}, indent=1).encode())

    def samples(self, prefix: str) -> int:
        """Usual batches that the stages of this prefix learn from in all."""
        return sum(n * self.batches.get(name, 1) for name, n in self.steps.items() if name.startswith(prefix))


def seconds_per_step(stage: Stage, out: Path, batches: int = 1) -> float:
    """Time a few steps; what the stage trains on is drawn into `out` first, where it stays."""
    config = replace(stage.config, batches=batches)
    return max(1e-4, timing(stage.name, PROBE_STEPS, lambda: stage.run(out, config)))


def fit(stage: Stage, out: Path, budget: Callable[[], float]) -> tuple[int, int]:
    """Steps of a stage and usual batches per step, for so many seconds (asked after its data has been drawn).

    Where the time has no room for the recipe's steps, a GPU learns from more samples per step instead, as long as a step
    with twice the batch takes less than `DOUBLED` times as long. On a CPU a step takes as long as its batch is large.
    """
    batches, seconds = 1, seconds_per_step(stage, out)

    def steps() -> int:
        return max(1, min(stage.config.steps, int(budget() / seconds)))

    while (
        training_device().type != "cpu" and batches < MOST_BATCHES and steps() * batches < stage.config.steps
        and (slower := seconds_per_step(stage, out, 2 * batches)) < DOUBLED * seconds
    ):  # fmt: skip
        batches, seconds = 2 * batches, slower
    return steps(), batches


def train_all(out: Path, minutes: float, *, note: Callable[[str], None] = lambda _: None) -> None:
    """Train every part that `out` lacks. A run that was stopped continues where it was, with its plan.

    A stage's steps are those of its recipe, or as many as its share of the minutes that are left has room for. Raises
    `CareEditError` if the minutes are used up before a stage is planned.
    """
    out.mkdir(parents=True, exist_ok=True)
    plan = Plan.read(out, minutes)
    begun = time.monotonic() - plan.seconds
    left = [stage for stage in stages(minutes) if finished(stage.name, out) is None]
    while left:
        stage = left[0]
        if stage.name not in plan.steps:
            if stage.name == "base":
                build_pools(base_to(untrained(load_vae(out)), training_device()), out / "pools")
            if stage.name == f"expert-{UNIFIED}":  # as many samples as all experts together, whatever the budget
                plan.batches[stage.name] = max((plan.batches.get(f"expert-{name}", 1) for name in RECIPES), default=1)
                plan.steps[stage.name] = max(1, plan.samples("expert-") // plan.batches[stage.name])
            else:
                plan.steps[stage.name], plan.batches[stage.name] = fit(
                    stage, out, partial(_budget, minutes, begun, left)
                )
        plan.seconds = time.monotonic() - begun
        plan.write(out)
        steps, batches = plan.steps[stage.name], plan.batches.get(stage.name, 1)
        note(f"{stage.name}: {steps:,} steps{f' of {batches} usual batches' if batches > 1 else ''}.")
        stage.run(out, replace(with_steps(stage.config, steps), batches=batches))
        left.pop(0)
    plan.seconds = time.monotonic() - begun
    plan.write(out)


def _budget(minutes: float, begun: float, left: Sequence[Stage]) -> float:
    """Seconds for the first of the stages that are left, by its share of theirs. Raises `CareEditError` if none are left."""
    remaining = minutes * 60 * (1 - MEASURING) - (time.monotonic() - begun)
    if remaining <= 0:
        raise CareEditError(
            f"The {minutes:g} minutes are used up before {left[0].name}; train it and what follows on its own, or train "
            "into another folder with more minutes."
        )
    return remaining * left[0].share / sum(stage.share for stage in left)
