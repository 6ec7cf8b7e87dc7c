"""Instructions said in other words, for training the router: rephrased, with words that were never heard, politely.

What a phrasing says is its slots ("the red circle", "top left"); how it says it is the rest, and only that is changed.
Held-out phrasings are never shown, nor are their words among the unheard ones.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from random import Random

from careedit.finetune.router.fit import english_words, noisy
from careedit_tiny.recipes.clip.captions import vocabulary
from careedit_tiny.world.operations import EXPERT_OF, RELATIONS
from careedit_tiny.world.phrases import LOOK_NAMES, NUMBERS, PHRASES, phrasings
from careedit_tiny.world.scene import (
    BACKDROPS,
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    MOODS,
    POSITIONS,
    SHAPES,
    SIZES,
    TEXTURES,
)

REPHRASED, SIBLING = 0.7, 0.1
"""Shares of instructions said in another seen phrasing: of the same operation, or of one like it for the same expert."""
NOISY, POLITE = 0.6, 0.25
"""Shares of instructions some of whose words are replaced, and to which words are added."""
_SLOT = re.compile(r"\{(\w+)\}")
_SAME = {"d": "value", "c": "value", "s": "value", "t": "value"}


def _any(words: object) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))  # type: ignore[call-overload]


@cache
def _slot_patterns() -> dict[str, str]:
    thing = rf"(?:(?:{_any(COLOURS)}) )?(?:{_any(SHAPES)})"
    return {
        "x": f"the {thing}",
        "z": f"the {thing}",
        "y": rf"an? (?:\w+ ){{0,3}}?{thing}",
        "xs": rf"{thing}(?:e?s)?",
        "p": _any(POSITIONS),
        "n": _any(NUMBERS),
        "c": _any((*COLOURS, *BACKGROUNDS)),
        "s": _any(SIZES),
        "t": _any((*TEXTURES, *BACKDROPS)),
        "d": _any((*DIRECTIONS, *MOODS)),
        "r": _any(RELATIONS),
        "look": _any(LOOK_NAMES.values()),
    }


@cache
def _patterns(operation: str) -> tuple[re.Pattern[str], ...]:
    """One pattern per seen phrasing, the one with most words of its own first."""
    phrases = sorted(phrasings(operation, "seen"), key=lambda phrase: -len(_SLOT.sub("", phrase)))
    slot = _slot_patterns()
    return tuple(
        re.compile(
            "".join(
                f"(?P<{part}>{slot[part]})" if i % 2 else re.escape(part) for i, part in enumerate(_SLOT.split(phrase))
            )
        )
        for phrase in phrases
    )


@lru_cache(maxsize=65536)
def slots_of(instruction: str, operation: str) -> tuple[tuple[str, str], ...] | None:
    """The slots and their words in an instruction of the tiny world; None if no seen phrasing matches."""
    for pattern in _patterns(operation):
        match = pattern.fullmatch(instruction)
        if match is not None:
            return tuple(match.groupdict().items())
    return None


@cache
def _siblings(operation: str) -> tuple[str, ...]:
    """Seen phrasings of the other operations of the same expert that have the same slots."""

    def shape(phrase: str) -> list[str]:
        return sorted(_SAME.get(slot, slot) for slot in _SLOT.findall(phrase))

    own = shape(PHRASES[operation][0])
    others = (o for o in PHRASES if o != operation and EXPERT_OF[o] == EXPERT_OF[operation])
    return tuple(phrase for other in others for phrase in phrasings(other, "seen") if shape(phrase) == own)


@cache
def unheard_words() -> tuple[str, ...]:
    """English words that no phrasing of the drawn world has, seen or held out."""
    held_out = {word for operation in PHRASES for phrase in phrasings(operation, "held_out") for word in phrase.split()}
    return english_words(frozenset((*vocabulary(), *(word.lower() for word in held_out))))


def in_other_words(instruction: str, operation: str | None, rng: Random) -> str:
    """The instruction said otherwise; `operation` None for one that is not of the tiny world, whose words are kept
    more carefully."""
    slots = None if operation is None else slots_of(instruction, operation)
    if operation is None or slots is None:
        return noisy(instruction, None, rng, unheard_words())
    phrase = _phrase(operation, tuple(name for name, _ in slots), rng)
    values = dict(slots)
    if phrase is None:
        phrase = instruction
        for name, value in slots:
            phrase = phrase.replace(value, f"{{{name}}}", 1)
    else:
        # A sibling calls the same thing by another letter: "{c}" where the operation's own phrasings have "{s}".
        spare = [value for name, value in slots if name in _SAME]
        values |= {name: spare[0] for name in _SLOT.findall(phrase) if name not in values}
    words = phrase.split()
    if rng.random() < NOISY:
        words = _noisy(words, rng)
    if rng.random() < POLITE:
        extra = [rng.choice(unheard_words()) if rng.random() < 0.6 else "please" for _ in range(rng.randint(1, 2))]
        words = [*extra, *words] if rng.random() < 0.7 else [*words, *extra]
    return " ".join(words).format(**values)


def _phrase(operation: str, slots: tuple[str, ...], rng: Random) -> str | None:
    """Another seen phrasing with these slots, or None to keep the one there is."""
    draw = rng.random()
    if draw < SIBLING and _siblings(operation):
        return rng.choice(_siblings(operation))
    if draw < SIBLING + REPHRASED:
        fitting = [p for p in phrasings(operation, "seen") if sorted(_SLOT.findall(p)) == sorted(slots)]
        return rng.choice(fitting)
    return None


def _noisy(words: list[str], rng: Random) -> list[str]:
    """Some words of the phrasing replaced by unheard ones or left out, slots kept."""
    rate = rng.uniform(0.1, 0.6)
    out: list[str] = []
    for word in words:
        draw = rng.random()
        if "{" in word or draw >= rate * 1.25:
            out.append(word)
        elif draw < rate:
            out.append(rng.choice(unheard_words()))
    return out if any("{" not in word for word in out) else words
