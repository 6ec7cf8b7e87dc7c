"""The English that careedit knows, read once from `english.yaml`: patterns, and the word classes that they are made of.

Two kinds of text are searched. Edit kinds and protecting clauses are searched in the normalised instruction
(`careedit.language.kinds.normalise`); clauses are matched in the instruction as it was written, in any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Rule:
    """A pattern that speaks for an edit kind."""

    kind: str
    """The edit kind, a key of `COMPETENCES`."""
    weight: float
    """How strongly a match speaks for the kind; `english.yaml` has the scale."""
    pattern: re.Pattern[str]
    """What is searched in the normalised instruction; a reason quotes its groups, or else the whole match."""


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has it
_ENGLISH: Mapping[str, Any] = yaml.load(Path(__file__).with_name("english.yaml").read_text("utf-8"), Loader=_LOADER)
_FRAGMENTS: Mapping[str, str] = {
    **{name: f"(?:{'|'.join(re.split(r', *', words))})" for name, words in _ENGLISH["words"].items()},
    **_ENGLISH["fragments"],
}


def _expanded(texts: str | Iterable[str]) -> str:
    """Alternatives as one pattern, with each `<name>` replaced by its word class or fragment."""
    text = texts if isinstance(texts, str) else "|".join(texts)
    while (longer := re.sub(r"(?<!\?P)<(\w+)>", lambda match: _FRAGMENTS[match[1]], text)) != text:
        text = longer
    return text


def _whole_words(texts: str | Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{_expanded(texts)})(?!\w)")


def _any_case(texts: str | Iterable[str]) -> re.Pattern[str]:
    return re.compile(_expanded(texts), re.IGNORECASE)


COMPETENCES: Mapping[str, str] = {kind: entry["competence"] for kind, entry in _ENGLISH["edit_kinds"].items()}
"""Each edit kind with the competence that it needs by default."""

RULES: tuple[Rule, ...] = tuple(
    Rule(kind, float(weight), _whole_words(texts))
    for kind, entry in _ENGLISH["edit_kinds"].items()
    for rule in entry["rules"]
    for weight, texts in rule.items()
)
"""Every rule, kind by kind; of kinds that score the same, the earlier one wins."""

ALL_BUT = _whole_words(_ENGLISH["protecting"]["all_but"])
"""An exception that protects one thing and extends the edit to all the rest: "everything but the dog"."""
PROTECTING: tuple[re.Pattern[str], ...] = tuple(map(_whole_words, _ENGLISH["protecting"]["clauses"]))
"""Phrases that say what must stay as it is; each match is one clause."""
GENERIC = _whole_words(_ENGLISH["protecting"]["generic"])
"""Names that no object has, such as "the rest": to protect them asks for no special care."""

CLAUSE_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, _any_case(text)) for kind, texts in _ENGLISH["clause_kinds"].items() for text in texts
)
"""Pairs of a clause's kind and a pattern for the whole clause; the first pattern that fits decides."""
SPLIT, HEAD, TAIL, PLACE, LEADING_PLACE, EXCEPT = (
    _any_case(_ENGLISH["clause"][name]) for name in ("split", "head", "tail", "place", "leading_place", "except")
)
"""Where clauses end; what may precede and follow an order; a place alone, and before its order; an exception."""
