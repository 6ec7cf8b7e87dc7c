"""Which edit kinds an instruction's words speak for, and which words those are."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from careedit.language.grammar import ALL_BUT, GENERIC, PROTECTING, RULES

PAUSE = ","
"""The token that replaces any punctuation that ends a clause."""
IDENTITY_BONUS = 2.0
"""Added to the score of "style" to make that of "identity", where a global look comes with something to keep."""

_PAUSES = re.compile(r"[,;:.!?()\[\]\n，。；：！？、—–]+")
_TOKENS = re.compile(r"[^\W_]+(?:'[^\W_]+)?|,")
_NEGATIONS = (("can't", "can not"), ("cannot", "can not"), ("won't", "will not"), ("dont", "do not"), ("n't", " not"))
_MAX_QUOTES = 4
_CONDITION = 1 << 30  # sorts conditions behind every word


def normalise(text: str) -> str:
    """`text` in lower case, its words and `PAUSE`s separated by single spaces.

    Unicode is compatibility-composed (NFKC), hyphens separate words, contracted negations are written out ("don't" -> "do
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


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for an edit kind or an expert."""

    score: float = 0.0
    """The sum of the weights of everything that was found."""
    found: tuple[tuple[int, str], ...] = ()
    """Position in the normalised instruction, and the words in quotes; conditions come last, without quotes."""

    def plus(self, score: float, *found: tuple[int, str]) -> Evidence:
        """This evidence and more, with `score` added."""
        return Evidence(self.score + score, (*self.found, *found))

    def plus_condition(self, score: float, name: str) -> Evidence:
        """This evidence and a condition such as "a mask", with `score` added."""
        return self.plus(score, (_CONDITION, name))

    def words(self) -> str:
        """What was found, in the instruction's order: "'erase' and a mask"."""
        longest: dict[int, str] = {}
        for at, text in self.found:
            if at != _CONDITION and len(text) > len(longest.get(at, "")):
                longest[at] = text
        quotes = list(dict.fromkeys(text for _, text in sorted(longest.items())))[:_MAX_QUOTES]
        return listed([*quotes, *dict.fromkeys(text for at, text in self.found if at == _CONDITION)])


def listed(texts: list[str]) -> str:
    """Texts as an English enumeration: "a, b and c"."""
    return " and ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)


def kinds_of(instruction: str) -> dict[str, Evidence]:
    """The edit kinds that an instruction's words speak for; empty where no rule matches."""
    text, kept = _without_protected(normalise(instruction))
    kinds: dict[str, Evidence] = {}
    for rule in RULES:
        match = rule.pattern.search(text)
        if match is not None:
            kinds[rule.kind] = kinds.get(rule.kind, Evidence()).plus(rule.weight, (match.start(), _quote(match)))
    strongest = max(kinds, key=lambda kind: kinds[kind].score, default=None)
    if kept.score and strongest == "style":
        kinds["identity"] = kinds["style"].plus(IDENTITY_BONUS, *kept.found)
    return kinds


def _without_protected(text: str) -> tuple[str, Evidence]:
    """A normalised instruction without the clauses that say what must stay, and the evidence of those clauses.

    "make everything but the dog a mosaic" -> "make everything a mosaic", with 'but' found. The score counts the clauses
    about something in particular: "keep the rest" is removed too, but adds nothing, because it holds for any edit.
    """
    kept = Evidence()
    for pattern, substitute in ((ALL_BUT, "everything"), *((pattern, PAUSE) for pattern in PROTECTING)):
        while (match := pattern.search(text)) is not None:
            # "everything" in front of "but" names no object; anywhere else it does.
            clause = text[match.end(1) : match.end()] if pattern is ALL_BUT else match[0]
            if GENERIC.search(clause) is None:
                kept = kept.plus(1.0, (match.start(), _quote(match)))
            text = f"{text[: match.start()]}{substitute}{text[match.end() :]}"
    return text, kept


def _quote(match: re.Match[str]) -> str:
    """A match's groups, or all of it, in quotes: "'turn … into'"."""
    return f"'{' … '.join(group for group in match.groups() if group) or match[0].strip()}'"
