"""What an instruction's words say: the edit kinds they speak for, and which words those are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from careedit.routing.lexicon import RULES
from careedit.routing.protecting import ALL_BUT, GENERIC, PROTECTING
from careedit.routing.words import PAUSE, normalise

IDENTITY_BONUS = 2.0
"""A global look with something to keep is for the identity expert rather than the style expert."""

_QUOTED_AT_MOST = 4
_CONDITION = 1 << 30  # sorts conditions behind every word


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for an edit kind or an expert."""

    score: float = 0.0
    """Sum of the weights."""
    found: tuple[tuple[int, str], ...] = ()
    """Position in the normalised instruction, and the words in quotes; conditions stand last, without quotes."""

    def plus(self, score: float, *found: tuple[int, str]) -> Evidence:
        """This and more."""
        return Evidence(self.score + score, (*self.found, *found))

    def plus_condition(self, score: float, name: str) -> Evidence:
        """This and a condition such as "a mask"."""
        return self.plus(score, (_CONDITION, name))

    def words(self) -> str:
        """What was found, in the instruction's order: "'erase' and a mask"."""
        longest: dict[int, str] = {}
        for at, text in self.found:
            if at != _CONDITION and len(text) > len(longest.get(at, "")):
                longest[at] = text
        quoted = list(dict.fromkeys(text for _, text in sorted(longest.items())))[:_QUOTED_AT_MOST]
        texts = [*quoted, *dict.fromkeys(text for at, text in self.found if at == _CONDITION)]
        return " and ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)


def quote(match: re.Match[str]) -> str:
    """A match's groups, or all of it, in quotes: "'turn … into'"."""
    return f"'{' … '.join(group for group in match.groups() if group) or match[0].strip()}'"


def without_protected(text: str) -> tuple[str, Evidence]:
    """A normalised instruction less the clauses that say what must stay, and the evidence for those clauses.

    "make everything but the dog a mosaic" -> "make everything a mosaic", with 'but' found. The score counts the clauses
    about something in particular: "keep the rest" is taken out too, but guards any edit and counts for none.
    """
    kept = Evidence()
    for pattern, substitute in ((ALL_BUT, "everything"), *((pattern, PAUSE) for pattern in PROTECTING)):
        while (match := pattern.search(text)) is not None:
            # "everything" in front of "but" names no object; anywhere else it does.
            clause = text[match.end(1) : match.end()] if pattern is ALL_BUT else match[0]
            if GENERIC.search(clause) is None:
                kept = kept.plus(1.0, (match.start(), quote(match)))
            text = f"{text[: match.start()]}{substitute}{text[match.end() :]}"
    return text, kept


def kinds_of(instruction: str) -> dict[str, Evidence]:
    """The edit kinds that an instruction's words speak for; empty where no rule knows a word."""
    text, kept = without_protected(normalise(instruction))
    kinds: dict[str, Evidence] = {}
    for rule in RULES:
        match = rule.pattern.search(text)
        if match is not None:
            kinds[rule.kind] = kinds.get(rule.kind, Evidence()).plus(rule.weight, (match.start(), quote(match)))
    strongest = max(kinds, key=lambda kind: kinds[kind].score, default=None)
    if kept.score and strongest == "style":
        kinds["identity"] = kinds["style"].plus(IDENTITY_BONUS, *kept.found)
    return kinds
