"""The rules router: conditions and keywords. It reads English, gives reasons, and is the baseline of the learned router."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from careedit.language import COMPETENCES, Evidence, kinds_of, normalise
from careedit.records import BASE, RoutingDecision
from careedit.routing.base import RoutableExpert
from careedit.routing.features import RoutingFeatures
from careedit.routing.topk import entropy, softmax, softmax_top_k

REFERENCE_WEIGHT = 5.0
"""Added to the strongest kind's score for a reference picture: only a reference expert has learned to use one."""
MASK_WEIGHT = 0.5
"""Added for a mask to experts that handle masks. Small, because a mask shows where to edit and hardly what."""
MASK_ALONE_WEIGHT = 1.0
"""Score of "replace" for a mask without a known word: filling the masked region is the likeliest wish."""
KEYWORD_WEIGHT = 2.5
"""Added for a keyword, which is a word that only this expert's manifest names."""
MIN_SHARE = 0.05
"""Minimum weight of an expert in a mixture, as a share of the first expert's: each one costs an evaluation per step."""
WHOLE_PICTURE = 0.98
"""A mask over this share of the picture or more counts as no mask."""

_MASK = {"mask", "masked"}


class RulesRouter:
    """Scores each expert by how strongly words and conditions speak for the edit kinds that it serves.

    An expert serves the kinds that its manifest's `handles` names; a kind that no expert of the set names goes to those
    whose `competence` it needs by default (`COMPETENCES`). Any other word in `handles`, or another competence, is a keyword
    for that expert. An expert's score is that of its best kind, plus keywords and a mask it `handles`;
    probabilities are a softmax over the experts and the base. Only experts with a positive score are chosen. If
    nothing is found, or the kind has no expert, the base is used alone. Of equals, the earlier one in the set wins. The
    same features always give the same decision.

    `feasible` is always 1, because words alone cannot show what is in the picture.
    """

    name = "rules"

    def __init__(self, experts: Sequence[RoutableExpert], *, temperature: float = 1.0) -> None:
        self._temperature = temperature
        named = {kind for expert in experts for kind in expert.handles}
        self._serves: dict[str, frozenset[str]] = {}
        self._keywords: dict[str, re.Pattern[str] | None] = {}
        for expert in experts:
            default = (k for k, needed in COMPETENCES.items() if k not in named and needed == expert.competence)
            self._serves[expert.name] = frozenset((*default, *(k for k in expert.handles if k in COMPETENCES)))
            self._keywords[expert.name] = _keywords(expert)
        self._for_masks = frozenset(expert.name for expert in experts if _MASK & set(expert.handles))

    def route(self, features: RoutingFeatures, *, top_k: int) -> RoutingDecision:
        """The experts for one edit and, as the reason, the words and conditions that decided."""
        kinds = self._kinds(features)
        text = normalise(features.instruction)
        scores = {name: self._score(name, kinds, text) for name in self._serves}
        nothing_found = not any(evidence.score for evidence in scores.values())
        for name in self._for_masks if _marks(features) else ():
            if scores[name].score or nothing_found:
                scores[name] = scores[name].plus_condition(MASK_WEIGHT, "a mask")
        unserved = [kind for kind in kinds if not any(kind in serves for serves in self._serves.values())]
        scores[BASE] = max((kinds[kind] for kind in unserved), key=lambda e: e.score, default=Evidence())

        names = list(scores)
        best = max(names, key=lambda name: scores[name].score)
        probabilities = softmax([scores[name].score for name in names], temperature=self._temperature)
        fitting = [name for name in names if name != BASE and scores[name].score > 0]
        if scores[best].score == 0 or best == BASE:
            weights = {BASE: 1.0}
        else:
            top = softmax_top_k([scores[name].score for name in fitting], top_k, temperature=self._temperature)
            kept = top.weights[top.weights >= MIN_SHARE * top.weights[0]]
            weights = {fitting[i]: float(w) for i, w in zip(top.chosen, kept / kept.sum(), strict=False)}
        return RoutingDecision(
            weights=weights,
            probabilities={name: float(p) for name, p in zip(names, probabilities, strict=True)},
            entropy=entropy(probabilities),
            router=self.name,
            reason=_reason(tuple(weights), scores),
        )

    def _kinds(self, features: RoutingFeatures) -> dict[str, Evidence]:
        """The evidence for each kind that the set can serve. Without an identity expert, a style expert serves in its
        place; without a reference expert, the other kinds decide."""
        served = frozenset[str]().union(*self._serves.values())
        kinds = kinds_of(features.instruction)
        if not kinds and _marks(features) and "replace" in served:
            kinds["replace"] = Evidence().plus_condition(MASK_ALONE_WEIGHT, "a mask")
        if features.has_reference:
            words = Evidence(found=kinds.pop("reference", Evidence()).found)
            strongest = max((evidence.score for evidence in kinds.values()), default=0.0)
            kinds["reference"] = words.plus_condition(strongest + REFERENCE_WEIGHT, "a reference picture")
        if not features.has_reference or "reference" not in served:
            kinds.pop("reference", None)
        if "identity" not in served:
            kinds.pop("identity", None)
        return kinds

    def _score(self, name: str, kinds: Mapping[str, Evidence], text: str) -> Evidence:
        served = (evidence for kind, evidence in kinds.items() if kind in self._serves[name])
        evidence = max(served, key=lambda e: e.score, default=Evidence())
        keywords = self._keywords[name]
        match = keywords.search(text) if keywords else None
        return evidence.plus(KEYWORD_WEIGHT, (match.start(), f"'{match[0]}'")) if match else evidence


def _marks(features: RoutingFeatures) -> bool:
    return features.has_mask and features.mask_area < WHOLE_PICTURE


def _keywords(expert: RoutableExpert) -> re.Pattern[str] | None:
    """A pattern of the keywords in the manifest, as whole words with or without a plural "s"."""
    known = {*COMPETENCES, *COMPETENCES.values(), *_MASK}
    words = [normalise(word.replace("_", " ")) for word in (expert.competence, *expert.handles) if word not in known]
    words = [re.escape(word) for word in dict.fromkeys(words) if word]
    return re.compile(rf"\b(?:{'|'.join(words)})s?\b") if words else None


def _reason(chosen: tuple[str, ...], scores: Mapping[str, Evidence]) -> str:
    first, *others = chosen
    words = scores[first].words()
    if first != BASE:
        more = "".join(f", with {name} for {scores[name].words()}" for name in others)
        return f"{words}: the {first} expert{more}."
    if words:
        return f"{words}: no expert of this set is for that, so the base alone."
    return "No rule knows a word of this instruction, and no condition speaks for an expert: the base alone."
