"""The second edition of the drawn world, which runs in a process of its own until the package has weights for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from careedit_tiny.world.geometry import EDITION_VARIABLE

SCRIPT = """
import json
import numpy as np
from careedit_tiny.models.family import PANEL, build_transformer, build_vae
from careedit_tiny.oracle.verdict import judge
from careedit_tiny.recipes.base.labels import GRID, panel_labels
from careedit_tiny.recipes.vae import draw_panels, grow, psnr
from careedit_tiny.world.draw import draw_scene, draw_window
from careedit_tiny.world.geometry import GEOMETRY
from careedit_tiny.world.operations import OPERATIONS
from careedit_tiny.world.samples import draw_sample
from careedit_tiny.world.scene import SHAPES, Scene, Thing

def picture(scene):
    return np.asarray(draw_scene(scene)).astype(int)

cell = PANEL // 3
one = [picture(Scene("gray", things=(Thing(shape, "red", place, "large", "dotted"),))) for shape in SHAPES for place in range(9)]
tiles = [p[r * cell:(r + 1) * cell, c * cell:(c + 1) * cell] for i, p in enumerate(one) for r, c in [divmod(i % 9, 3)]]
scene = Scene("navy", "checkered", (Thing("face", "white", 4, "small", "plain", "sad"),))
middle = slice(cell, 2 * cell)
window = draw_window(scene, scene.things[0], middle, middle, PANEL)
samples = [draw_sample(name, 3, "validation") for name in OPERATIONS]
labels = panel_labels(scene)[0]
half, whole = build_vae(half=True), build_vae()
grow(whole, half, draw_panels(0, 8))
print(json.dumps({
    "edition": GEOMETRY.edition,
    "cells_are_whole_tokens": cell % GEOMETRY.token == 0 and PANEL == GRID * GEOMETRY.token,
    "equal_in_every_cell": all((tiles[i] == tiles[i - i % 9]).all() for i in range(len(tiles))),
    "window_is_part_of_the_scene": bool(np.abs(window - picture(scene)[middle, middle]).max() <= 0.5),
    "labelled_tokens": sorted(np.flatnonzero(labels).tolist()),
    "centred": all(t.dx == t.dy == 0 for s in samples for t in (*s.source.things, *s.target.things)),
    "truths_pass": all(judge(s, s.target_image()).compliant for s in samples),
    "sources_fail": not any(judge(s, s.source_image()).followed for s in samples),
    "token_layout": [build_transformer().config.in_channels, build_transformer().config.out_channels],
    "grown": {k: bool((v == half.state_dict()[k]).all()) for k, v in whole.state_dict().items() if "mid_block" in k},
}))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, object]:
    """What the script prints about the second edition."""
    environment = {**os.environ, EDITION_VARIABLE: "2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_an_object_looks_the_same_in_every_cell_and_a_cell_is_whole_tokens(found: dict[str, object]) -> None:
    assert found["edition"] == 2
    assert found["cells_are_whole_tokens"] and found["equal_in_every_cell"] and found["centred"]
    assert found["labelled_tokens"] == [14, 15, 20, 21]


def test_the_oracle_accepts_truths_and_no_source(found: dict[str, object]) -> None:
    assert found["window_is_part_of_the_scene"]
    assert found["truths_pass"] and found["sources_fail"]


def test_the_token_layout_is_that_of_flux_fill(found: dict[str, object]) -> None:
    assert found["token_layout"] == [384, 64]


def test_a_vae_grows_from_one_of_pictures_half_as_wide(found: dict[str, object]) -> None:
    grown = found["grown"]
    assert isinstance(grown, dict) and grown and all(grown.values())
