"""Samples that the claims need in addition to the drawn world's own: untaught looks, brands, and other phrasings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from careedit_tiny.world.looks import UNTAUGHT
from careedit_tiny.world.phrases import phrasings
from careedit_tiny.world.samples import Sample, Split, draw_sample
from careedit_tiny.world.scene import COLOURS

BRANDS = {"navy": "dusk", "olive": "forest", "lavender": "frost"}
"""Brands and their looks. The names are words that the tiny base knows as colours of backgrounds."""
RIVALS = ("navy", "olive")
"""The two brands whose looks conflict: the same words ask for each, apart from the name."""
NEWCOMER = "lavender"
"""The brand that is a new competence."""
BRAND_WORDS = {
    "seen": (
        "give it the look of {brand}",
        "show it in the style of {brand}",
        "turn the picture into the look of {brand}",
    ),
    "held_out": ("I want the look of {brand}", "apply the style of {brand}"),
}
"""How a brand's look is asked for; no recipe uses these words with a brand's name."""
WORDS_FOR = {
    "forest": "a picture in forest colors",
    "dusk": "a picture at dusk",
    "frost": "a picture in frost colors",
    "bloom": "a picture in bloom",
}
"""The names of the untaught looks in words."""


def brand_sample(brand: str, index: int, split: Split) -> Sample:
    """Sample `index` of a brand's look: a drawn scene, words with the brand's name, and the exact result.

    Its kind is "style". As for all samples, only splits other than "train" use held-out phrasings, in half of the samples.
    """
    drawn = draw_sample("style.look", index, split)
    words = BRAND_WORDS["held_out" if drawn.held_out_phrasing else "seen"]
    phrasing = words[Random(f"brand:{brand}:{split}:{index}").randrange(len(words))]
    # The id decides the noise, so each brand has its own.
    return replace(
        drawn,
        id=f"{brand}-{drawn.id}",
        instruction=phrasing.format(brand=brand),
        target=replace(drawn.source, look=BRANDS[brand]),
        phrasing=phrasing,
        slots={"brand": brand},
    )


def look_samples(index: int, look: str | None) -> tuple[Sample, Sample]:
    """Test scene `index` under a look: asked for in words alone, and with a reference image that has the look.

    Both have the same source and the same right result. `look` is one of `UNTAUGHT`; None keeps the drawn, taught look.
    """
    shown = draw_sample("reference.look", index, "test")
    named = draw_sample("style.look", index, "test")
    if look is None:
        words, taken = named.instruction, named.target.look
    else:
        words, taken = named.phrasing.format(look=WORDS_FOR[look]), look
    assert shown.reference is not None  # the operation draws one
    target = replace(named.source, look=taken)
    by_words = replace(named, id=f"{taken}-{named.id}", instruction=words, target=target)
    by_reference = replace(
        shown,
        id=f"{taken}-{shown.id}",
        source=named.source,
        target=target,
        reference=replace(shown.reference, look=taken),
    )
    return by_words, by_reference


def untaught(index: int) -> str:
    """The untaught look of scene `index`; they take turns."""
    return tuple(UNTAUGHT)[index % len(UNTAUGHT)]


def ambiguous_samples(index: int) -> tuple[Sample, Sample]:
    """Test removal `index` in a scene that shows the named shape twice, in two colours; the words name only the shape.

    The two samples differ in the target alone: either object may go.
    """
    drawn = draw_sample("remove.thing", index, "test")
    rng = Random(f"ambiguous:{index}")
    (first,) = (thing for thing in drawn.source.things if thing not in drawn.target.things)
    taken = {thing.name for thing in drawn.source.things}
    colour = rng.choice([one for one in COLOURS if f"{one} {first.shape}" not in taken])
    second = replace(first, colour=colour, cell=rng.choice(drawn.source.free_cells()))
    # Two of a shape and no third: another object of that shape would be a third right answer.
    others = tuple(thing for thing in drawn.source.things if thing.shape != first.shape)
    source = replace(drawn.source, things=(*others, first, second))
    words = drawn.phrasing.format(x=f"the {first.shape}")
    one, other = (
        replace(
            drawn,
            id=f"ambiguous-{drawn.id}",
            instruction=words,
            source=source,
            target=replace(source, things=(*others, stays)),
        )
        for stays in (first, second)
    )
    return one, other


def in_other_phrasings(sample: Sample, each: int) -> Sequence[Sample]:
    """The sample in `each` seen and `each` held-out phrasings of its operation, the seen ones first.

    They differ in nothing but the words, so they share the noise of their id.
    """
    rng = Random(f"phrasings:{sample.id}")
    made = []
    for pool in ("seen", "held_out"):
        for phrasing in rng.sample(phrasings(sample.operation, pool), each):
            words = phrasing.format(**sample.slots)
            made.append(replace(sample, instruction=words, phrasing=phrasing, held_out_phrasing=pool == "held_out"))
    return made
