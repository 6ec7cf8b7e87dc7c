"""How the tiny family joins careedit: each function here is an entry point of a group in `careedit.plugins`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from careedit.errors import InputError
from careedit.plugins import ExpertRecipe
from careedit.samples import SampleEdit

if TYPE_CHECKING:
    from careedit.finetune.router.teach import RouterRecipe

WEIGHTS = Path(__file__).parent / "weights"
"""The folder of the packaged weights."""


def expert_set_folder() -> Path:
    """The packaged expert set, `tiny`."""
    return WEIGHTS


def judge_folder() -> Path:
    """The packaged judge. Raises `InputError` if this installation has none."""
    return _folder("judge")


def clip_folder() -> Path:
    """The packaged CLIP. Raises `InputError` if this installation has none."""
    return _folder("clip")


def dino_folder() -> Path:
    """The packaged DINO. Raises `InputError` if this installation has none."""
    return _folder("dino")


def draw_samples(
    count: int, *, side: int, first: int = 0, kinds: Sequence[str] | None = None, plain: bool = False
) -> list[SampleEdit]:
    """Edits of the drawn world's test split, as `careedit.samples.DrawSamples`."""
    from careedit_tiny.world.operations import KINDS
    from careedit_tiny.world.samples import draw_samples as draw
    from careedit_tiny.world.samples import request_for

    wanted = tuple(kind for kind in kinds or KINDS if not plain or kind not in ("masked", "reference"))
    return [
        SampleEdit(sample.kind, request_for(sample, size=side), sample.target_image(side))
        for sample in draw(count, "test", kinds=wanted, first=first)
    ]


def expert_recipes() -> dict[str, ExpertRecipe]:
    """The recipes of the tiny family's experts and of the unified LoRA."""
    from careedit_tiny.recipes.experts import RECIPES

    return {name: partial(_train, name) for name in RECIPES}


def router_recipe() -> RouterRecipe:
    """How the tiny router is trained, and what a router of the tiny experts rehearses."""
    from careedit.finetune.router.teach import RouterRecipe
    from careedit_tiny.recipes.router.run import rehearsal, train_command

    return RouterRecipe(train_command, rehearsal)


def _train(name: str, out: Path | None, steps: int | None, learning_rate: float | None) -> Path:
    from careedit.cli.recipes import RUNS, settings
    from careedit_tiny.recipes.experts import RECIPES
    from careedit_tiny.recipes.family import make_lora

    path, _ = make_lora(name, out or RUNS, settings(RECIPES[name].config, steps, learning_rate))
    return path


def _folder(name: str) -> Path:
    folder = WEIGHTS / name
    if not folder.is_dir():
        raise InputError(
            f"This installation has no tiny {name}; name another model by folder or hub id, or reinstall careedit."
        )
    return folder
