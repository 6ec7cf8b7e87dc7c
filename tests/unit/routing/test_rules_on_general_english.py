"""General English instructions, none of them the tiny world's, and the competence that each needs."""

from __future__ import annotations

import pytest

from careedit.routing import RoutingFeatures, RulesRouter

INSTRUCTIONS = {
    "erase": (
        "get rid of the tourist",
        "remove the watermark",
        "Please erase the power lines in the background",
        "make the stain on the shirt disappear",
        "take the cup off the table",
        "photoshop out the people behind us",
        "crop the stranger out",
        "I don't want the fence in this picture",
        "delete the text at the bottom",
        "clean the trash off the beach",
        "remove everything except the dog",
        "get rid of the red car but keep the blue one",
        "leave out the second chair",
        "remove the painting on the wall",
        "the man in the hat should be gone",
        "hide the logo",
        "lose the glasses",
        "remove the man running next to the bike",
        "erase two of the birds",
        "no more clouds",
    ),
    "compose": (
        "add a hat to the man",
        "put a vase on the table",
        "give the woman sunglasses",
        "insert a boat on the lake",
        "there should be a rainbow in the sky",
        "let there be a moon",
        "swap the dog for a cat",
        "replace the apple with an orange",
        "turn the bicycle into a motorcycle",
        "change the cat to a tiger",
        "make the dog look like a wolf",
        "remove the dog and put a cat there instead",
        "make the man smile",
        "let the dog sit down",
        "have her raise her hand",
        "make the boy look sad",
        "close her eyes",
        "rotate the bottle to face left",
        "add two more birds",
        "there should be three apples on the plate",
        "make it four candles",
        "move the lamp to the left of the sofa",
        "put the book on top of the box",
        "shift the tree a bit to the right",
        "make the car red",
        "change the color of the shirt to green",
        "paint the door blue",
        "make the hat bigger",
        "make the table wooden",
        "dye her hair purple",
        "change the apple into a painting",
        "add a poster above the bed",
        "draw a sketch on the whiteboard",
        "add a castle in the background",
        "make the building taller",
        "change his hair style",
        "open the window",
        "make the dog blue but keep the background",
        "make the dog blue with the background unchanged",
        "the background must not change, make the dog blue",
        "make the sky purple, the background stays as it is",
        "add a fence around the house",
    ),
    "style": (
        "Make it look like a Van Gogh painting",
        "turn this photo into a watercolor",
        "in the style of Monet",
        "make it black and white",
        "convert the image to grayscale",
        "make the whole scene look like winter",
        "give it a vintage look",
        "apply a sepia filter",
        "turn everything into pixel art",
        "make it a night scene",
        "make the picture brighter",
        "anime style",
        "make this look like a comic book",
        "blur the background",
        "change the background to a beach",
        "replace the background with a snowy mountain",
        "put him on a plain white background",
        "make the background green and leave the person alone",
        "remove the color from the photo",
        "increase the contrast",
        "turn it into a pencil drawing",
        "render the image as a 3d cartoon",
        "make it sunset",
        "make the sketch more colourful and leave the rest alone",
        "save the picture as a mosaic",
    ),
    "identity": (
        "make it look like an oil painting but keep the face unchanged",
        "turn the photo into a cartoon except the dog",
        "make everything black and white but the red umbrella",
        "make the picture black and white but keep the umbrella in color",
        "convert the image to anime without changing the logo",
        "everything but the sign should be a mosaic",
        "apply a sepia filter, don't touch the flag",
        "in the style of Picasso, her face stays the same",
        "Restyle it as a comic and preserve the woman's identity",
        "change the style to watercolour while keeping the brand name intact",
        "make it snowy, leaving the car as it is",
        "turn everything around the dog into a mosaic",
        "make it a sketch but not the sign",
        "a pencil sketch, with the logo kept as is",
    ),
    "base": (
        "ajoute un chien",
        "entferne den Hund",
        "把狗去掉",
        "удали собаку",
        "beautiful",
        "a red car",
        "asdf qwerty",
    ),
}
CASES = [(text, competence) for competence, texts in INSTRUCTIONS.items() for text in texts]


@pytest.fixture(scope="module")
def router(experts):
    return RulesRouter(experts)


@pytest.mark.parametrize(("text", "competence"), CASES, ids=[text for text, _ in CASES])
def test_an_instruction_goes_to_the_expert_that_it_needs(router, text, competence):
    decision = router.route(RoutingFeatures(text), top_k=1)

    assert decision.weights == {competence: 1.0}, decision.reason
