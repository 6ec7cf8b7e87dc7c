"""What other packages add to careedit. They state it as entry points, and careedit finds it there.

A package that ships models of its own adds, for example, to its `pyproject.toml`:

    [project.entry-points."careedit.packaged_sets"]
    mine = "my_package.plugin:expert_set_folder"

`careedit_tiny`, the drawn world with its small models, is added in this way and in no other.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from careedit.errors import CareEditError

PACKAGED_SETS = "careedit.packaged_sets"
"""Expert sets by name: a function without arguments that returns the set's folder (`Path`)."""
SET_SCHEMES = "careedit.expert_sets"
"""Registries of expert sets by address scheme ("models:/..."): a function from the address to a folder or address."""
JUDGES = "careedit.judges"
"""Judges by name: a function without arguments that returns the folder of an image-text-to-text model."""
BACKBONES = "careedit.backbones"
"""Encoders of metrics by name ("tiny_clip"): a function without arguments that returns the model's folder."""
SAMPLES = "careedit.samples"
"""Example edits by name: a function as `careedit.samples.DrawSamples`."""
RECIPES = "careedit.recipes"
"""Recipes of experts, for `careedit train expert RECIPE`: a function without arguments to a dict of `ExpertRecipe` by name."""
ROUTERS = "careedit.routers"
"""Training of routers, for `careedit train router`: a function without arguments to a
`careedit.finetune.router.teach.RouterRecipe`."""
TRAIN = "careedit.train"
"""Commands of `careedit train`: a `typer.Typer`."""
EVAL = "careedit.eval"
"""Commands of `careedit eval`, such as an evaluation with a world of its own: a `typer.Typer`."""
BENCH_SUBJECTS = "careedit.bench_subjects"
"""What `careedit bench engine --expert-set NAME` measures besides expert sets: a function as `untrained_subject`."""
BENCHMARKS = "careedit.benchmarks"
"""Benchmarks of `careedit eval` by name: a pair of options record and builder."""
LISTINGS = "careedit.listings"
"""Folders of samples in a format of their own, by the name of their list ("samples.jsonl"): a function from the folder to the
samples of a benchmark."""
METRICS = "careedit.metrics"
"""Metrics of `careedit eval` by name: a pair of options record and builder."""
RUNNERS = "careedit.runners"
"""How `careedit edit --workers` runs rows in several processes: a `careedit.batches.running.Runner`."""

WATERMARKS = "careedit.watermarks"
"""Methods of invisible watermarks by name: an object as `careedit.provenance.watermark.Watermark`."""

ExpertRecipe = Callable[[Path | None, int | None, float | None], Path]
"""Trains one expert: results folder (None: the recipe's), steps and peak learning rate (None: the recipe's) -> its folder."""


def names(group: str) -> tuple[str, ...]:
    """The names that installed packages add to a group, sorted."""
    return tuple(sorted({entry.name for entry in metadata.entry_points(group=group)}))


def load(group: str, name: str, *, error: type[CareEditError] = CareEditError) -> Any:
    """The object that an installed package adds to `group` as `name`; None if no package does.

    Raises `error` if the object cannot be imported because a package is missing.
    """
    for entry in metadata.entry_points(group=group, name=name):
        try:
            return entry.load()
        except ModuleNotFoundError as missing:
            extras = f"pip install 'careedit[{','.join(entry.extras)}]'" if entry.extras else "pip install careedit"
            raise error(
                f"{name!r} needs the package {missing.name!r}, which is not installed; install it with: {extras}"
            ) from missing
    return None
