"""Scenes in words, and captions that are wrong by one word: what the tiny CLIP learns from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from random import Random

from careedit_tiny.world.phrases import LOOK_NAMES, NUMBERS, PHRASES, group_name, phrasings, with_article
from careedit_tiny.world.scene import (
    BACKDROPS,
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    LOOKS,
    MOODS,
    POSITIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    random_scene,
)

OPENINGS = ("", "", "it shows ", "there is ", "a picture of ", "a scene with ", "here is ", "I see ")
PLACES = ("at the {}", "in the {}", "on the {}")
GROUNDS = ("on {a}", "in front of {a}", "with {a}", "and the background is {plain}")
JOINERS = (" and ", ", ", " with ")
RELATIONS = ("to", "the", "left", "right", "of", "above", "below", "over", "under", "beside", "next")


@dataclass(frozen=True, slots=True)
class Mention:
    """An object, or a group of equal ones, as a caption names it."""

    shape: str
    """Shape of the object, one of `SHAPES`."""
    colour: str
    """Colour of the object, one of `COLOURS`."""
    cell: int | None = None
    """Index into `POSITIONS`. None if the caption does not name the place."""
    count: int = 1
    """Number of equal objects that the mention names. Default: 1."""
    details: tuple[str, ...] = ()
    """Words for its size or texture."""

    def words(self, place: str) -> str:
        """ "a large red circle at the top left", "three red circles"."""
        name = " ".join((*self.details, f"{self.colour} {self.shape}"))
        if self.count > 1:
            return f"{NUMBERS[self.count]} {group_name(name, self.count)}"
        return with_article(name) + ("" if self.cell is None else f" {place.format(POSITIONS[self.cell])}")


@dataclass(frozen=True, slots=True)
class Caption:
    """What a caption says, apart from how."""

    mentions: tuple[Mention, ...]
    """The objects that the caption names, in order."""
    background: str | None = None
    """Colour of the background; None if the caption does not name it."""
    backdrop: str | None = None
    """Pattern of the background; None if the caption does not name it."""
    look: str | None = None
    """Look of the picture; None if the caption does not name one."""
    opening: str = ""
    """Words before the objects, such as "a picture of "."""
    place: str = PLACES[0]
    """Template of an object's place, one of `PLACES`."""
    ground: str = GROUNDS[0]
    """Template of the words for the background, one of `GROUNDS`."""
    joiner: str = JOINERS[0]
    """Words between two objects, one of `JOINERS`."""

    def __str__(self) -> str:
        parts = [mention.words(self.place) for mention in self.mentions]
        if self.look is not None:
            parts.insert(0, LOOK_NAMES[self.look])
        text = self.joiner.join(parts) or "nothing"
        if self.background is not None:
            plain = " ".join(word for word in (self.backdrop, self.background) if word)
            text += " " + self.ground.format(a=with_article(f"{plain} background"), plain=plain)
        return self.opening + text


def group_scene(rng: Random) -> Scene:
    """A scene in which, sometimes, one object occurs two to four times."""
    scene = random_scene(rng, minimum=1, maximum=3)
    if rng.random() < 0.3:
        first = scene.things[0]
        cells = rng.sample(scene.free_cells(), rng.randint(1, 3))
        scene = scene.plus(*(replace(first, cell=cell) for cell in cells))
    return scene


def caption_of(scene: Scene, rng: Random, *, whole: bool = False) -> Caption:
    """A caption in random words; `whole` names every object with its place, and the background, in plain words."""
    groups = Counter(thing.name for thing in scene.things)
    names = list(dict.fromkeys(thing.name for thing in scene.things))
    if not whole:
        names = rng.sample(names, rng.randint(min(1, len(names)), min(3, len(names))))
    mentions = []
    for name in names:
        thing = next(thing for thing in scene.things if thing.name == name)
        cell = thing.cell if groups[name] == 1 and (whole or rng.random() < 0.7) else None
        details = tuple(
            word for word in (thing.size, thing.texture) if word not in ("plain", "medium") and rng.random() < 0.25
        )
        mentions.append(Mention(thing.shape, thing.colour, cell, groups[name], () if whole else details))
    if whole:
        return Caption(tuple(mentions), scene.background, scene.backdrop, scene.look)
    return Caption(
        mentions=tuple(mentions),
        background=scene.background if rng.random() < 0.6 or not mentions else None,
        backdrop=scene.backdrop if rng.random() < 0.5 else None,
        look=scene.look,
        opening=rng.choice(OPENINGS),
        place=rng.choice(PLACES),
        ground=rng.choice(GROUNDS),
        joiner=rng.choice(JOINERS),
    )


def one_word_off(caption: Caption, scene: Scene, rng: Random) -> Caption:
    """The caption with one word changed (colour, shape, place, count, background, backdrop) so that it is false."""
    there = {thing.name for thing in scene.things}
    options: list[Caption] = []

    def with_mention(i: int, **changes: object) -> None:
        mentions = list(caption.mentions)
        mentions[i] = replace(mentions[i], **changes)  # type: ignore[arg-type]
        options.append(replace(caption, mentions=tuple(mentions)))

    for i, mention in enumerate(caption.mentions):
        free = [c for c in COLOURS if c != mention.colour and f"{c} {mention.shape}" not in there]
        with_mention(i, colour=rng.choice(free))
        others = [s for s in SHAPES if s != mention.shape and f"{mention.colour} {s}" not in there]
        with_mention(i, shape=rng.choice(others))
        if mention.cell is not None:
            with_mention(i, cell=rng.choice([cell for cell in range(9) if cell != mention.cell]))
        if mention.count > 1:
            with_mention(i, count=rng.choice([n for n in range(2, 6) if n != mention.count]))
    if caption.background is not None:
        other = rng.choice([name for name in BACKGROUNDS if name != caption.background])
        options.append(replace(caption, background=other))
        if caption.backdrop is not None:
            other = rng.choice([name for name in BACKDROPS if name != caption.backdrop])
            options.append(replace(caption, backdrop=other))
    return rng.choice(options)


def named_objects(words: list[str]) -> list[tuple[int, str, str | None]]:
    """(index of the word, shape, colour or None) of every object that the words name, plurals included."""
    shapes = {form: shape for shape in SHAPES for form in (shape, group_name(shape, 2))}
    found = []
    for i, word in enumerate(words):
        if word in shapes:
            found.append((i, shapes[word], words[i - 1] if i and words[i - 1] in COLOURS else None))
    return found


def vocabulary() -> list[str]:
    """Every word that training shows: captions, and the seen phrasings of instructions."""
    slots = (COLOURS, SHAPES, SIZES, TEXTURES, BACKDROPS, BACKGROUNDS, POSITIONS, DIRECTIONS, MOODS, NUMBERS, LOOKS)
    texts = [word for names in slots for word in names]
    texts += [group_name(shape, 2) for shape in SHAPES]
    texts += [*LOOK_NAMES.values(), *OPENINGS, *PLACES, *GROUNDS, *JOINERS, *RELATIONS, "a an the nothing background"]
    texts += [phrase for operation in PHRASES for phrase in phrasings(operation, "seen")]
    words = {word.strip("?!.") for text in texts for word in text.replace(",", " , ").lower().split()}
    return sorted(word for word in words if word and "{" not in word)
