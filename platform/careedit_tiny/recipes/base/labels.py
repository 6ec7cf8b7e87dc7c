"""What each token of a canvas shows, in words: the labels of the scene probe (`careedit_tiny.recipes.base.probe.SceneProbe`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from careedit_tiny.world.draw import silhouette
from careedit_tiny.world.geometry import GEOMETRY
from careedit_tiny.world.scene import (
    BACKDROPS,
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    LOOKS,
    MOODS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
)

GRID = GEOMETRY.grid
"""Tokens along a panel's side."""
UNKNOWN = 255
"""The label of tokens about which nothing is known, for example in a blank panel."""
NONE = "-"
"""The value of an object's attributes in tokens without an object, and of the look of an image without a look."""

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "shape": (NONE, *SHAPES),
    "colour": (NONE, *COLOURS),
    "size": (NONE, *SIZES),
    "texture": (NONE, *TEXTURES),
    "pose": (NONE, *DIRECTIONS, *MOODS),
    "background": tuple(BACKGROUNDS),
    "backdrop": BACKDROPS,
    "look": (NONE, *LOOKS),
}
"""Values per attribute; a label is an index into them."""

_COVERED = 40 if GEOMETRY.edition == 1 else 8
"""Coverage of a token, of 255, from which an object counts as shown there: every object lies on whole tokens."""


def panel_labels(scene: Scene | None) -> NDArray[np.uint8]:
    """[len(ATTRIBUTES), GRID, GRID]; `UNKNOWN` throughout for a panel without a scene."""
    labels = np.full((len(ATTRIBUTES), GRID, GRID), UNKNOWN, np.uint8)
    if scene is None:
        return labels
    labels[:5] = 0
    for i, name in enumerate(ATTRIBUTES):
        if name in ("background", "backdrop", "look"):
            labels[i] = ATTRIBUTES[name].index(getattr(scene, name) or NONE)
    highest = np.full((GRID, GRID), _COVERED, np.uint8)
    for index, thing in enumerate(scene.things):
        coverage = np.asarray(silhouette(thing, GRID))
        here = coverage >= highest
        highest = np.maximum(highest, coverage)
        for i, name in enumerate(("shape", "colour", "size", "texture", "pose")):
            labels[i][here] = ATTRIBUTES[name].index(getattr(thing, name))
        if index == scene.keep:
            labels[-1][here] = ATTRIBUTES["look"].index(NONE)
    return labels


def canvas_labels(scenes: Sequence[Scene | None]) -> NDArray[np.uint8]:
    """[len(ATTRIBUTES), T] in the order of the canvas's tokens, for its panels from left to right."""
    panels = np.concatenate([panel_labels(scene) for scene in scenes], axis=2)
    return panels.reshape(len(ATTRIBUTES), -1)
