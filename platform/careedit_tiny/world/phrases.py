"""How people say an edit: phrasings per operation, every third of them held out of training.

Slots: {x} an object that is there ("the red circle"), {y} a new object ("a blue star"), {p} a position, {n} a number
word, {xs} a group ("red circles"), {c} a colour, {s} a size, {t} a texture, {d} a direction or mood, {r} a relation
("to the left of"), {z} an anchor object, {look} a look.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Pool = Literal["seen", "held_out"]

LOOK_NAMES: Mapping[str, str] = {
    "monochrome": "a black and white photo",
    "sepia": "an old sepia photo",
    "negative": "a photo negative",
    "night": "a night scene",
    "mosaic": "a mosaic",
    "blur": "a blurry photo",
    "poster": "a pop art poster",
    "sketch": "a pencil sketch",
}

PHRASES: Mapping[str, tuple[str, ...]] = {
    "remove.thing": (
        "remove {x}", "delete {x}", "erase {x}", "take {x} away", "get rid of {x}", "take out {x}",
        "make {x} disappear", "wipe out {x}", "make {x} vanish", "please remove {x} from the picture", "{x} should be gone",
        "eliminate {x}", "cut {x} out of the picture", "leave out {x}", "let {x} vanish", "clear {x} away",
        "drop {x} from the scene", "do away with {x}", "I do not want to see {x}", "without {x} please",
        "can you delete {x}", "the picture should no longer have {x}", "strip out {x}", "lose {x}",
    ),
    "add.thing": (
        "add {y} at the {p}", "put {y} at the {p}", "place {y} in the {p}", "draw {y} at the {p}", "insert {y} at the {p}",
        "set {y} down at the {p}", "there should be {y} at the {p}", "at the {p} add {y}", "include {y} at the {p}",
        "please add {y} in the {p}", "I want {y} at the {p}", "introduce {y} at the {p}", "at the {p} there should be {y}",
        "put in {y} at the {p}", "give the picture {y} at the {p}", "paint {y} at the {p}", "let there be {y} at the {p}",
        "drop {y} into the {p}", "the {p} needs {y}", "can you place {y} at the {p}", "position {y} at the {p}",
    ),
    "replace.thing": (
        "replace {x} with {y}", "swap {x} for {y}", "exchange {x} for {y}", "turn {x} into {y}", "change {x} into {y}",
        "substitute {y} for {x}", "make {x} become {y}", "put {y} in place of {x}", "transform {x} into {y}",
        "where {x} is there should be {y}", "use {y} instead of {x}", "convert {x} into {y}", "instead of {x} show {y}",
        "let {x} become {y}", "{x} should be {y}", "replace {x} by {y}", "please swap {x} with {y}", "trade {x} for {y}",
        "I want {y} instead of {x}", "change {x} to {y}", "switch {x} with {y}",
    ),
    "action.turn": (
        "turn {x} to point {d}", "make {x} point {d}", "rotate {x} so that it points {d}", "point {x} {d}", "let {x} face {d}",
        "{x} should point {d}", "spin {x} until it points {d}", "rotate {x} to face {d}", "have {x} point {d}",
        "turn {x} so it faces {d}", "make {x} face {d}", "aim {x} {d}",
    ),
    "action.mood": (
        "make {x} look {d}", "make {x} {d}", "let {x} be {d}", "{x} should look {d}", "give {x} a {d} expression",
        "turn {x} {d}", "have {x} look {d}", "{x} is {d} now", "change {x} so that it looks {d}", "{x} should be {d}",
        "let {x} look {d}", "show {x} with a {d} look",
    ),
    "counting.set": (
        "make it {n} {xs}", "there should be {n} {xs}", "change the number of {xs} to {n}", "show {n} {xs}",
        "I want {n} {xs}", "let there be {n} {xs}", "set the number of {xs} to {n}", "have {n} {xs} in the picture",
        "make the {xs} number {n}", "{n} {xs} please", "the picture should have {n} {xs}", "change it to {n} {xs}",
        "give me {n} {xs}", "the count of {xs} should be {n}", "there must be {n} {xs}", "exactly {n} {xs}",
        "turn it into {n} {xs}", "draw {n} {xs} in all", "we need {n} {xs}", "put the number of {xs} at {n}", "have {n} {xs}",
    ),
    "relation.beside": (
        "move {x} {r} {z}", "put {x} {r} {z}", "place {x} {r} {z}", "{x} should be {r} {z}", "bring {x} {r} {z}",
        "shift {x} so that it is {r} {z}", "let {x} be {r} {z}", "I want {x} {r} {z}", "set {x} {r} {z}",
        "take {x} and put it {r} {z}", "relocate {x} {r} {z}", "have {x} {r} {z}",
    ),
    "relation.move": (
        "move {x} to the {p}", "put {x} at the {p}", "shift {x} to the {p}", "{x} should be at the {p}",
        "bring {x} to the {p}", "let {x} be at the {p}", "take {x} to the {p}", "place {x} at the {p}", "carry {x} to the {p}",
        "relocate {x} to the {p}", "{x} goes to the {p}", "set {x} at the {p}",
    ),
    "attribute.colour": (
        "make {x} {c}", "color {x} {c}", "paint {x} {c}", "change the color of {x} to {c}", "{x} should be {c}",
        "give {x} a {c} color", "turn {x} {c}", "recolor {x} to {c}", "let {x} be {c}", "the color of {x} should be {c}",
        "dye {x} {c}", "{x} in {c} please",
    ),
    "attribute.size": (
        "make {x} {s}", "resize {x} to {s}", "{x} should be {s}", "change the size of {x} to {s}", "let {x} be {s}",
        "set the size of {x} to {s}", "give {x} a {s} size", "turn {x} {s}", "the size of {x} should be {s}",
    ),
    "attribute.texture": (
        "make {x} {t}", "give {x} a {t} pattern", "{x} should be {t}", "change the texture of {x} to {t}", "let {x} be {t}",
        "the pattern of {x} should be {t}", "cover {x} with a {t} pattern", "turn {x} {t}", "give {x} a {t} texture",
    ),
    "background.colour": (
        "make the background {c}", "change the background to {c}", "paint the background {c}",
        "the background should be {c}", "turn the background {c}", "color the background {c}", "give it a {c} background",
        "put everything on a {c} background", "set the background color to {c}", "I want a {c} background",
        "let the background be {c}", "use a {c} backdrop",
    ),
    "background.texture": (
        "make the background {t}", "change the background to a {t} pattern", "give the background a {t} pattern",
        "the background should be {t}", "turn the background {t}", "put a {t} pattern on the background",
        "I want a {t} background", "let the background be {t}", "use a {t} backdrop", "set the background to {t}",
        "cover the background with a {t} pattern", "a {t} background please",
    ),
    "style.look": (
        "make it look like {look}", "turn the picture into {look}", "render this as {look}", "make this {look}",
        "the picture should look like {look}", "change the style to {look}", "show it as {look}",
        "convert the picture into {look}", "give it the style of {look}", "transform the picture into {look}",
        "redo it in the style of {look}", "I want it to look like {look}", "let it look like {look}", "restyle it as {look}",
        "draw the whole picture as {look}", "make the whole picture look like {look}", "as {look} please",
        "present everything as {look}", "turn everything into {look}", "apply the look of {look}",
        "the style should be {look}",
    ),
    "identity.look": (
        "make it look like {look} but keep {x} exactly as it is", "turn the picture into {look} but leave {x} alone",
        "render everything except {x} as {look}", "make this {look} but do not touch {x}",
        "change the style to {look} without changing {x}", "{x} stays the same and the rest becomes {look}",
        "turn everything but {x} into {look}", "show it as {look} with {x} unchanged",
        "keep {x} as it is and make the rest {look}", "preserve {x} and turn the picture into {look}",
        "leave {x} untouched and make it look like {look}", "except for {x} everything should look like {look}",
        "make all but {x} look like {look}", "restyle it as {look} but {x} must not change",
        "apply the look of {look} everywhere except on {x}", "only {x} stays while the picture becomes {look}",
        "convert the picture into {look} but preserve {x}", "everything except {x} becomes {look}",
        "give it the style of {look} while keeping {x}", "protect {x} and make the picture {look}",
        "keep {x} original and render the rest as {look}",
    ),
    "reference.colour": (
        "give {x} the color of the reference", "make {x} the same color as in the reference",
        "paint {x} in the color of the reference", "{x} should have the color of the object in the reference",
        "use the color of the reference for {x}", "take the color of the reference for {x}",
    ),
    "reference.texture": (
        "give {x} the pattern of the reference", "make {x} have the same texture as the reference",
        "cover {x} with the pattern of the reference", "{x} should have the texture of the object in the reference",
        "use the pattern of the reference for {x}", "take the texture of the reference for {x}",
    ),
    "reference.thing": (
        "add the object of the reference at the {p}", "put the object from the reference at the {p}",
        "place what the reference shows at the {p}", "insert the object of the reference at the {p}",
        "the object from the reference should be at the {p}", "draw the object of the reference at the {p}",
    ),
    "reference.look": (
        "give it the look of the reference", "make it look like the reference", "use the style of the reference",
        "the picture should have the look of the reference", "apply the style of the reference",
        "match the look of the reference",
    ),
    "masked.remove": (
        "remove the marked object", "erase what is marked", "clear the marked area", "delete the marked object",
        "take away what is in the marked area", "get rid of what is marked",
    ),
    "masked.replace": (
        "replace the marked object with {y}", "turn the marked object into {y}", "put {y} in place of what is marked",
        "change the marked object into {y}", "swap the marked object for {y}", "the marked object should be {y}",
    ),
    "masked.add": (
        "add {y} in the marked area", "put {y} in the marked area", "place {y} here", "draw {y} where it is marked",
        "insert {y} here", "fill the marked area with {y}",
    ),
    "masked.colour": (
        "make the marked object {c}", "color the marked object {c}", "paint what is marked {c}",
        "change the color of the marked object to {c}", "the marked object should be {c}", "recolor the marked object to {c}",
    ),
}  # fmt: skip


def phrasings(operation: str, pool: Pool) -> tuple[str, ...]:
    """The phrasings of one operation: every third is held out of training."""
    held_out = pool == "held_out"
    return tuple(phrase for i, phrase in enumerate(PHRASES[operation]) if (i % 3 == 2) == held_out)


def with_article(words: str) -> str:
    """ "orange star" -> "an orange star"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


NUMBERS = ("no", "one", "two", "three", "four", "five")


def group_name(name: str, count: int) -> str:
    """The plural that follows a number word: "red circles", "red crosses"; one stays singular."""
    if count == 1:
        return name
    return name + ("es" if name.endswith(("s", "x")) else "s")
