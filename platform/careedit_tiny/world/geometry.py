"""Where things lie in a picture: the one place that says how the drawn world fits the models' tokens.

A picture is a grid of 3 x 3 cells. In the second edition every cell is a whole number of tokens, objects sit at the centres of
cells, and textures repeat within a cell. So an object looks the same to a model in every cell.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

EDITION_VARIABLE = "CAREEDIT_TINY_EDITION"
"""Environment variable that selects an edition, for the recipes of weights that the package does not have yet."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The layout of pictures in one edition of the world."""

    edition: int
    """Number of the edition, 1 or 2; written nowhere, because the weights of one edition fit no other."""
    side: int
    """Side of a picture at its native size, in pixels."""
    token: int
    """Side of a token of the editor, in pixels of the native size."""
    sizes: Mapping[str, float]
    """Diameter of an object by name, as a share of the picture's side; the largest fits its cell."""
    ground_periods: int
    """Repetitions of a background's texture along the side."""
    object_periods: int
    """Repetitions of an object's texture along the side."""
    shift: float
    """Maximum distance of an object from the centre of its cell, as a share of the side."""
    mosaic: int
    """Blocks of the mosaic look along the side."""

    @property
    def grid(self) -> int:
        """Tokens along the side of a picture."""
        return self.side // self.token


EDITIONS: Mapping[int, Geometry] = {
    1: Geometry(1, 64, 8, {"small": 0.17, "medium": 0.23, "large": 0.29}, 8, 16, 0.02, 16),
    2: Geometry(2, 96, 16, {"small": 18 / 96, "medium": 24 / 96, "large": 30 / 96}, 6, 9, 0.0, 12),
}
"""The editions. The first goes when the package has weights for the second."""

PACKAGED = 1
"""Edition that the packaged weights were made for."""

GEOMETRY = EDITIONS[int(os.environ.get(EDITION_VARIABLE, PACKAGED))]
"""The edition of this process."""
