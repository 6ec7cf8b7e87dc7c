"""What the tokens of a canvas are said to show."""

from __future__ import annotations

from careedit_tiny.recipes.base.labels import ATTRIBUTES, GRID, UNKNOWN, canvas_labels, panel_labels
from careedit_tiny.world.scene import Scene, Thing

SCENE = Scene("gray", "striped", (Thing("circle", "red", cell=4, size="large"),))


def value(scene: Scene, attribute: str, row: int, column: int) -> str:
    index = list(ATTRIBUTES).index(attribute)
    return ATTRIBUTES[attribute][panel_labels(scene)[index, row, column]]


def test_a_token_says_which_object_it_shows():
    middle = [value(SCENE, name, 4, 4) for name in ("shape", "colour", "size", "texture", "pose")]
    assert middle == ["circle", "red", "large", "plain", "up"]
    assert value(SCENE, "shape", 0, 0) == "-"


def test_every_token_knows_the_background_that_lies_behind_it():
    for row, column in ((0, 0), (4, 4)):
        assert value(SCENE, "background", row, column) == "gray"
        assert value(SCENE, "backdrop", row, column) == "striped"


def test_a_kept_object_has_no_look():
    styled = Scene(SCENE.background, SCENE.backdrop, SCENE.things, look="sepia", keep=0)
    assert value(styled, "look", 0, 0) == "sepia"
    assert value(styled, "look", 4, 4) == "-"


def test_tokens_follow_the_canvas_row_by_row_and_a_blank_panel_has_no_labels():
    labels = canvas_labels((None, SCENE))
    assert labels.shape == (len(ATTRIBUTES), 2 * GRID * GRID)
    rows = labels.reshape(len(ATTRIBUTES), GRID, 2 * GRID)
    assert (rows[:, :, :GRID] == UNKNOWN).all()
    assert (rows[:, :, GRID:] == panel_labels(SCENE)).all()
