"""Word lists that the rules are made of, and the small language that their patterns are written in."""

from __future__ import annotations

import re
from collections.abc import Mapping


def _any(words: str) -> str:
    """A group that matches any of the comma-separated words, which may be patterns."""
    return f"(?:{'|'.join(word.strip() for word in words.split(','))})"


_PICTURE = _any("picture, photo, photograph, image, pic, scene, shot, painting, drawing, frame, thing") + "s?"

FRAGMENTS: Mapping[str, str] = {
    "gap": r"(?:[\w']+ ){1,8}?",  # one to eight words, with no pause among them
    "the": _any(
        r"the, this, that, these, those, his, her, its, their, my, our, your, all, both, each, every, one, two,"
        r"three, \w+'s"
    ),
    "a": _any("a, an, some, another, more, several, many"),
    "number": _any(r"one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, a dozen, \d+"),
    "end": r"(?= ?(?:$|,|(?:and|please|instead|now|again|too|but|in|with|like)(?!\w)))",  # of a phrase
    "picture": _PICTURE,
    "whole": rf"(?:everything|(?:all of |all )?(?:the|this|my|that) (?:whole |entire |full )?{_PICTURE}(?! of))",
    "change": _any(
        "make, turn, convert, transform, change, render, redo, show, paint, repaint, draw, redraw, depict,recreate, let"
    ),
    "replacing": "(change|replace|switch|swap|turn|transform|put|place|set)",
    "removing": r"(?:remov|delet|eras|eliminat|obliterat|discard|scrub|omit+|purg)(?:e|es|ed|ing|s|)",
    "changing": r"(?:chang|touch|alter|modify|modifi|affect|edit|mov|replac|remov|delet|eras|recolor|disturb)"
    r"(?:e|es|ed|ing|s|)",
    "giving": _any(
        "put, place, draw, paint, give, show, create, generate, have, want, set, hang, plant, stick, drop,"
        "leave, fit, squeeze"
    ),
    "color": _any(
        r"red, green, blue, yellow, purple, violet, orange, (?<!black and )white, black(?! and white), gray,"
        r"pink, brown, beige, navy, cyan, teal, turquoise, gold, golden, silver, olive, maroon, magenta,"
        r"lavender, (?:dark|light|bright|pale|deep) \w+"
    ),
    "size": _any(
        "small, smaller, big, bigger, large, larger, medium, tiny, huge, giant, tall, taller, short, shorter,"
        "wide, wider, narrow, narrower, thin, thinner, thick, thicker, long, longer, slim, slimmer"
    )
    + "(?: sized)?",
    "texture": _any(
        "striped, stripy, dotted, spotted, plain, checkered, checked, plaid, polka dot, patterned, smooth,"
        "rough, wooden, metallic, metal, glass, marble, stone, furry, fluffy, leather, knitted, transparent,"
        "shiny, matte, rusty, glossy"
    ),
    "mood": _any(
        "happy, sad, angry, surprised, scared, tired, bored, excited, calm, serious, joyful, smiling, crying,"
        "cheerful, unhappy"
    ),
    "pose": _any(
        "point, face, look (?:up|down|left|right|away|at|toward|back), sit, stand, run, jump, walk, smile,"
        "laugh, cry, frown, grin, sleep, lie, lean, bend, kneel, crouch, dance, fly, swim, wave, wink, raise,"
        "lower, lift, open, close, shut, hold, hug, kiss, eat, drink, read, bark, yawn, climb, stretch, bow,"
        "nod"
    )
    + "(?:s|es|ing|ting|ning|ping)?",
    "spot": _any(
        "to, at, on, onto, in, into, inside, next, beside, above, over, below, under, underneath, behind,"
        "between, near, closer, left, right, in front, away from, up, down, across, toward, towards, further,"
        "farther, back, forward"
    ),
    "place": _any(
        "beach, forest, jungle, desert, mountains?, city, skyline, countryside, ocean, meadow, field, street,"
        "park, garden, studio"
    ),
    "look": _any(
        r"sketch, cartoon, comics?, comic book, manga, anime, ghibli, pixar, disney, claymation, caricature,"
        r"drawing, oil painting, painting, watercolor, acrylics?, charcoal, pastel, crayon, pencil, ink,"
        r"pixel art, voxel, low poly, mosaic, stained glass, poster, pop art, line art, art deco, art nouveau,"
        r"ukiyo e, impression(?:ist|ism|istic), cub(?:ist|ism), surreal(?:ist|ism|istic)?, baroque,"
        r"renaissance, abstract, gogh, monet, picasso, hokusai, rembrandt, vermeer, dali, warhol, klimt, sepia,"
        r"black and white, monochrom\w*, gr[ae]yscale, negative, invert(?:ed)?, vintage, retro, noir,"
        r"old photo, old fashioned, polaroid, cinematic, hdr, blur(?:red|ry)?, posteri[sz]ed?, pixelat\w+,"
        r"night, nighttime, sunset, sunrise, dawn, dusk, winter, wintry, autumn, summer, snowy, rainy, foggy,"
        r"cyberpunk, steampunk, vaporwave, neon, 3d, render(?:ing)?, photorealistic, realistic, engraving,"
        r"etching, woodcut, graffiti, embroidery, origami, lego, illustration, fresco, tapestry"
    ),
}
"""What a name in angle brackets stands for in a pattern."""


def pattern(*alternatives: str) -> re.Pattern[str]:
    """Whole words that match one of the alternatives; `<name>` in them stands for `FRAGMENTS[name]`."""
    text = re.sub(r"<(\w+)>", lambda match: FRAGMENTS[match[1]], "|".join(alternatives))
    return re.compile(rf"\b(?:{text})(?!\w)")
