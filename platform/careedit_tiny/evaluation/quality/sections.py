"""The sections after the table: reference edits, identity edits, infeasible instructions, chains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from careedit.stats import bootstrap_mean, bootstrap_ratio
from careedit_tiny.evaluation.quality.measure import Arm, Bench, Task
from careedit_tiny.evaluation.quality.outcomes import Outcome
from careedit_tiny.evaluation.quality.rows import row_of, share
from careedit_tiny.models.family import PANEL
from careedit_tiny.oracle.verdict import DEFAULT
from careedit_tiny.world.samples import Sample

Chain = Sequence[Sample]
"""The turns of one chain of edits."""


def reference_section(
    samples: Sequence[Sample], outcomes: Mapping[str, Sequence[Outcome]], main: str
) -> dict[str, Any]:
    """Per row: the share of reference edits that took the right attribute from the reference.

    These are the edits that were followed: the oracle compares an edit with drawings of every other colour, texture,
    object and look, so an edit that took another one than the reference's is not followed.
    """
    at = [i for i, sample in enumerate(samples) if sample.kind == "reference"]
    if not at:
        return {"count": 0, "right_attribute": None, "rows": {}}
    rows = {}
    for name, row in outcomes.items():
        followed = np.array([float(row[i].followed) for i in at])
        rows[name] = {"right_attribute": float(followed.mean()), "ci": list(bootstrap_mean(followed))}
    return {"count": len(at), "by": main, **rows[main], "rows": rows}


def identity_section(samples: Sequence[Sample], outcomes: Mapping[str, Sequence[Outcome]], main: str) -> dict[str, Any]:
    """Per row: the share of identity edits whose kept object fails the oracle's test of preservation, and its mean error."""
    at = [i for i, sample in enumerate(samples) if sample.kind == "identity"]
    if not at:
        return {"count": 0, "drifted": None, "rows": {}}
    rows = {}
    for name, row in outcomes.items():
        drifted = np.array([float(bool(row[i].kept_drifted)) for i in at])
        rows[name] = {
            "drifted": float(drifted.mean()),
            "ci": list(bootstrap_mean(drifted)),
            "mean_error": float(np.mean([row[i].kept_drift or 0.0 for i in at])),
        }
    return {"count": len(at), "by": main, **rows[main], "rows": rows}


def infeasible_section(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Per row: the share of infeasible instructions that left the image as it was."""
    count = len(next(iter(outcomes.values()), ()))
    if not count:
        return {"count": 0, "rows": {}}
    rows = {}
    for name, row in outcomes.items():
        figures = row_of(row)
        rows[name] = {
            "left_alone": figures.compliance,
            "ci": share(figures.compliant)["ci"],
            "preservation_error": float(figures.preservation_error.mean()),
        }
    return {"count": count, "rows": rows}


def chain_section(
    bench: Bench, chains: Sequence[Chain], choose: Mapping[str, Callable[[Sample, Image.Image], Arm]], main: str
) -> dict[str, Any]:
    """Edits of several turns, each on the result of the turn before. `choose` picks the arm of a turn, by row."""
    if not chains:
        return {"count": 0, "all_turns_right": None, "drift_ratio": None, "rows": {}}
    rows = {name: _chains(bench, chains, one) for name, one in choose.items()}
    return {"count": len(chains), "by": main, **rows[main], "rows": rows}


def _chains(bench: Bench, chains: Sequence[Chain], choose: Callable[[Sample, Image.Image], Arm]) -> dict[str, Any]:
    pictures = [chain[0].source_image(PANEL) for chain in chains]
    kept = [_untouched(chain) for chain in chains]
    starts = [np.asarray(picture, np.float32) / 255 for picture in pictures]
    right = np.ones(len(chains), bool)
    by_turn: list[float] = []
    errors: list[NDArray[np.float64]] = []  # summed over each chain's untouched pixels
    for turn in range(len(chains[0])):
        tasks = [
            Task(
                chain[turn],
                choose(chain[turn], picture),
                bench.plan.noise(chain[turn]),
                keep=True,
                source=picture if turn else None,
            )
            for chain, picture in zip(chains, pictures, strict=True)
        ]
        outcomes = bench.measure(tasks)
        pictures = [outcome.image for outcome in outcomes]
        compliant = np.array([outcome.compliant for outcome in outcomes])
        right &= compliant
        by_turn.append(float(compliant.mean()))
        errors.append(
            np.array(
                [
                    float(np.abs(np.asarray(picture, np.float32) / 255 - start)[mask].mean(axis=1).sum())
                    for picture, start, mask in zip(pictures, starts, kept, strict=True)
                ],
                np.float64,
            )
        )
    # Pooled over pixels, because a chain that changed the background leaves only a few, which must not count as a whole image.
    area = np.array([float(mask.sum()) for mask in kept])
    first, last = errors[0], errors[-1]
    ratio = bootstrap_ratio(last, first)
    return {
        "all_turns_right": float(right.mean()),
        "ci": list(bootstrap_mean(right.astype(float))),
        "drift_ratio": float(last.sum() / first.sum()) if first.sum() > 0 else None,
        "drift_ratio_ci": None if ratio is None else list(ratio),
        "compliance_by_turn": by_turn,
        "preservation_error_by_turn": [float(error.sum() / max(1.0, area.sum())) for error in errors],
    }


def _untouched(chain: Chain) -> NDArray[np.bool_]:
    """Pixels outside the edit of every turn and its halo, [side, side]. They should stay as in the first source."""
    touched = np.zeros((PANEL, PANEL), bool)
    for sample in chain:
        before, after = (
            np.asarray(picture, int) for picture in (sample.source_image(PANEL), sample.target_image(PANEL))
        )
        touched |= np.abs(before - after).max(axis=2) > DEFAULT.changed * 255
    if not touched.any():
        return ~touched
    return np.asarray(ndimage.distance_transform_edt(~touched) > DEFAULT.halo)
