"""What to keep of a run: results and reports without training data and checkpoints, and a summary of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from careedit.errors import CareEditError, InputError
from careedit.files import write_atomic
from careedit.finetune.loop import TrainReport
from careedit_tiny.recipes.cards import HISTORY
from careedit_tiny.recipes.family import remove_origin
from careedit_tiny.recipes.whole import PLAN, stages

MODELS = ("vae", "decoder", "words", "base", "experts", "clip", "router", "judge", "dino")
"""Folders of a run with the models that an expert set is made of."""
SUMMARY = "summary.json"
MAXIMUM_BYTES = 60_000_000
"""Largest size of what is kept, so that a repository can take it."""


def summary(run: Path) -> dict[str, Any]:
    """Steps, seconds, losses and number format of every stage that is finished, the wall-clock seconds, and what is missing."""
    plan = json.loads((run / PLAN).read_text("utf-8")) if (run / PLAN).exists() else {}
    names = [stage.name for stage in stages(plan.get("minutes", 0.0))]
    reports = {name: TrainReport.load(run / f"{name}.json") for name in names if (run / f"{name}.json").exists()}
    return {
        "version": 1,
        "minutes": plan.get("minutes"),
        "seconds": plan.get("seconds"),
        "stages": {
            name: {
                "steps": report.config.steps,
                "batches": report.config.batches,
                "seconds": report.seconds,
                "loss": [report.curve[0][1], report.curve[-1][1]],
                "format": None if report.number_format is None else report.number_format.name,
                "device": None if report.number_format is None else report.number_format.device,
            }
            for name, report in reports.items()
        },
        "missing": [name for name in names if name not in reports],
    }


def keep(run: Path, folder: Path) -> dict[str, Any]:
    """Copy what to keep of `run` to `folder` (replaced as a whole), which `careedit train assemble --out` reads as a run.

    Returns the summary. Raises `InputError` if nothing is finished, and `CareEditError` above `MAXIMUM_BYTES`.
    """
    found = summary(run)
    if not found["stages"]:
        raise InputError(f"{run} has no finished recipe; train one first, or name another folder with --out.")
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for path in (*(run / name for name in MODELS), *run.glob("*.safetensors")):
        if path.is_dir():
            shutil.copytree(path, fresh / path.name)
        elif path.is_file():
            shutil.copyfile(path, fresh / path.name)
    for path in (*run.glob("*.json"), *run.glob("*.png"), run / HISTORY):
        if path.is_file():
            shutil.copyfile(path, fresh / path.name)
    remove_origin(fresh)
    write_atomic(fresh / SUMMARY, json.dumps(found, indent=1).encode())
    size = sum(path.stat().st_size for path in fresh.rglob("*") if path.is_file())
    if size > MAXIMUM_BYTES:
        shutil.rmtree(fresh)
        raise CareEditError(f"What to keep of {run} takes {size / 1e6:.0f} MB, more than {MAXIMUM_BYTES / 1e6:.0f} MB.")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return found
