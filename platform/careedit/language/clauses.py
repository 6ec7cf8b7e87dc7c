"""An instruction as clauses, each with its kind and parts: "make the sky purple" is an attribute, x "the sky", v "purple"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from careedit.language.grammar import CLAUSE_KINDS, EXCEPT, HEAD, LEADING_PLACE, PLACE, SPLIT, TAIL

MAX_CLAUSES = 8
"""Clauses that are read one by one; whatever follows them is read as one more."""
MAX_CHARACTERS = 200
"""Longest clause that is matched against patterns, in characters; a longer one has no kind."""

_PRONOUNS = ("it", "them", "him", "her", "this", "that")


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing that an instruction asks for."""

    text: str
    """The words of the clause, without "please" and the like."""
    kind: str = ""
    """A kind of `careedit.language.grammar.CLAUSE_KINDS`, or "" where no pattern fits."""
    parts: Mapping[str, str] = field(default_factory=dict[str, str])
    """x: what is changed; y: what is to appear; v: how x is to be; z: a place, with its preposition; n: a number."""


def clauses_of(instruction: str) -> tuple[Clause, ...]:
    """The clauses of an instruction in their order; at least one if it contains a word."""
    pieces: list[str] = []
    for piece in SPLIT.split(" ".join(instruction.split())):
        if pieces and PLACE.fullmatch(pieces[-1]):  # "in the background, add a boat"
            piece = f"{pieces.pop()} {piece}"
        if piece.strip(" ,.;!?"):
            pieces.append(piece)
    if len(pieces) > MAX_CLAUSES:
        pieces = [*pieces[:MAX_CLAUSES], ", ".join(pieces[MAX_CLAUSES:])]
    return tuple(_parsed(pieces))


def except_for(text: str) -> str | None:
    """What a clause excludes ("the dog" of "everything but the dog"), or None."""
    found = EXCEPT.search(text)
    return None if found is None else found["x"]


def _parsed(pieces: list[str]) -> Iterator[Clause]:
    last_thing: str | None = None
    for piece in pieces:
        clause = _clause(_plain(piece), last_thing)
        last_thing = clause.parts.get("x", clause.parts.get("y", last_thing))
        yield clause


def _plain(text: str) -> str:
    """A clause without "please" and the like, and with its place at its end."""
    text = text.strip(" ,.;:!?")
    while (shorter := HEAD.sub("", text)) != text:
        text = shorter
    text = LEADING_PLACE.sub(r"\g<rest> \g<z>", text)
    while (shorter := TAIL.sub("", text).strip(" ,.;:!?")) != text and shorter:
        text = shorter
    return text


def _clause(text: str, last_thing: str | None) -> Clause:
    if len(text) > MAX_CHARACTERS or EXCEPT.search(text):
        return Clause(text)
    for kind, pattern in CLAUSE_KINDS:
        found = pattern.fullmatch(text)
        if found is None:
            continue
        parts = {name: value.strip() for name, value in found.groupdict().items() if value}
        if parts.get("x", "").lower() in _PRONOUNS:
            if last_thing is None:  # "it" may be the whole picture
                continue
            parts["x"] = last_thing
        if (where := parts.pop("where", None)) is not None:
            parts["z"] = f"{'on or near' if kind == 'add at' else 'at'} {where}"
        if "z" in parts:
            place = parts["z"][:1].lower() + parts["z"][1:]
            parts["z"] = re.sub(r"^(on|in)to\b", r"\1", place)
        return Clause(text, kind, parts)
    return Clause(text)
