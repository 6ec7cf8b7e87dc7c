"""Instructions as words: one spelling for what people type in several ways."""

from __future__ import annotations

import re
import unicodedata

PAUSE = ","
"""The token that stands for any punctuation that ends a clause."""

_PAUSES = re.compile(r"[,;:.!?()\[\]\n，。；：！？、—–]+")
_TOKENS = re.compile(r"[^\W_]+(?:'[^\W_]+)?|,")
_NEGATIONS = (("can't", "can not"), ("cannot", "can not"), ("won't", "will not"), ("dont", "do not"), ("n't", " not"))


def normalise(text: str) -> str:
    """`text` in lower case, its words and `PAUSE`s separated by single spaces.

    Unicode is compatibility-composed (NFKC), hyphens part words, contracted negations are written out ("don't" -> "do
    not"), and the British "colour" and "grey" become "color" and "gray". Text of any script passes.
    """
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("‘", "'")
    for short, long in _NEGATIONS:
        text = re.sub(rf"{short}\b", long, text)
    text = re.sub(r"\bgrey", "gray", text.replace("colour", "color"))
    # A decimal point or a thousands comma ends no clause.
    text = _PAUSES.sub(f" {PAUSE} ", re.sub(r"(?<=\d)[.,](?=\d)", "", text))
    return " ".join(_TOKENS.findall(text)).strip(f" {PAUSE}")


def words_of(text: str) -> tuple[str, ...]:
    """The words of `normalise(text)`, without pauses."""
    return tuple(word for word in normalise(text).split() if word != PAUSE)
