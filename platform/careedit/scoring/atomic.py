"""Atomic judging (JURE, arXiv 2504.07424): many small questions per edit, which show what is right and wrong with it.

JURE has a language model split an instruction into questions about objects, attributes, relations and unwanted change.
Here the clauses of `careedit.language` do it, so that the same instruction always gives the same questions. A clause of
unknown kind is quoted in one question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from careedit.language import Clause, clauses_of, except_for
from careedit.scoring.scorer import Question, ScoreRequest
from careedit.scoring.vqa import Posed, VqaScorer, questions_for

PROMPTS = "atomic-2"
"""Version of the questions and of the patterns that choose them."""
END = " Answer yes or no."
"""The request that ends every question."""
FOLLOWED, PRESERVED = "followed", "preserved"


@dataclass(frozen=True, slots=True)
class Atom:
    """One question about the pictures before ("first") and after ("second") an edit."""

    aspect: str
    """The aspect that the answer is about: "followed" or "preserved"."""
    text: str
    """The question, without the request to answer by yes or no."""
    wanted: bool = True
    """The answer that counts in favour of the edit: True = yes."""


_SHOWS = Atom(FOLLOWED, "Does the second picture show {y}?")
_NEW = Atom(FOLLOWED, "Does the second picture show {y} where the first does not?")
_AT = Atom(FOLLOWED, "Does the second picture show {y} {z}?")
_GONE = Atom(FOLLOWED, "Can {any_x} of the first picture still be seen in the second?", wanted=False)
_IN_PLACE = Atom(FOLLOWED, "Did {y} take the place of {x}?")
_FILLED = Atom(PRESERVED, "Does the place of {x} look like what is around it in the second picture?")
_BECAME = Atom(FOLLOWED, "Did {x} become {v} in the second picture?")
_SAME_THING = Atom(
    PRESERVED, 'Apart from this, did {x} change from the first picture to the second: "{clause}"?', wanted=False
)
_DOES = Atom(FOLLOWED, "Can {x} be seen to {v} in the second picture?")
_TRUE = Atom(FOLLOWED, "Is it true of the second picture that {x} {v}?")
_TURNED = Atom(FOLLOWED, "Did {x} turn {v} from the first picture to the second?")
_MOVED = Atom(FOLLOWED, "Did {x} move {v} from the first picture to the second?")
_STANDS = Atom(FOLLOWED, "Does the second picture show {x} {z}?")
_LEFT = Atom(FOLLOWED, "Is {x} still where it was in the first picture?", wanted=False)
_COUNT = Atom(FOLLOWED, "Are there exactly {n} {y} in the second picture?")
_BACKDROP = Atom(FOLLOWED, "Did the background become {v} in the second picture?")
_FOREGROUND = Atom(PRESERVED, "Did anything in front of the background change?", wanted=False)
_LOOK = Atom(FOLLOWED, "Does the second picture look like {v}?")
_PICTURE = Atom(FOLLOWED, "Did the picture become {v}, going from the first to the second?")
_EFFECT = Atom(FOLLOWED, "Does the second picture have {v}, and the first has not?")
_CONTENT = Atom(PRESERVED, "Does the second picture show the same things as the first, in the same places?")
_KEPT = Atom(PRESERVED, "Did {x} change from the first picture to the second?", wanted=False)
_QUOTED = Atom(FOLLOWED, 'Was this done from the first picture to the second: "{clause}"?')

ASKED: Mapping[str, tuple[Atom, ...]] = {
    "keep": (_KEPT,),
    "background": (_BACKDROP, _FOREGROUND),
    "look": (_LOOK, _CONTENT),
    "effect": (_EFFECT, _CONTENT),
    "picture": (_PICTURE, _CONTENT),
    "remove": (_GONE, _FILLED),
    "replace": (_SHOWS, _GONE, _IN_PLACE),
    "count": (_COUNT,),
    "pose": (_DOES, _SAME_THING),
    "state": (_TRUE, _SAME_THING),
    "turn": (_TURNED, _SAME_THING),
    "attribute": (_BECAME, _SAME_THING),
    "shift": (_MOVED, _SAME_THING),
    "move": (_STANDS, _LEFT, _SAME_THING),
    "place": (_STANDS, _SAME_THING),
    "add": (_NEW,),
    "add at": (_NEW, _AT),
    "take": (),
}
"""What is asked for each kind of clause; `careedit.language` finds what the braces name."""

_EDIT = 'The first picture was to be edited into the second as follows: "{instruction}".'


def atoms_of(instruction: str) -> tuple[Atom, ...]:
    """Questions about what `instruction` asks for, clause by clause, and then about unwanted changes."""
    atoms: list[Atom] = []
    clauses = clauses_of(instruction)
    for clause in clauses:
        asked = ASKED[clause.kind] if clause.kind else (_QUOTED,)
        atoms += [Atom(atom.aspect, atom.text.format(**_words(clause)), atom.wanted) for atom in asked]
        if (kept := except_for(clause.text)) is not None:
            atoms.append(Atom(PRESERVED, _KEPT.text.format(x=kept), wanted=False))
    if not any(atom.aspect == FOLLOWED for atom in atoms):
        atoms.insert(0, Atom(FOLLOWED, _QUOTED.text.format(clause=instruction.strip())))
    return (*dict.fromkeys(atoms), *_unwanted(instruction, clauses))


def _unwanted(instruction: str, clauses: tuple[Clause, ...]) -> tuple[Atom, ...]:
    """Questions about unwanted changes, without those that are part of the kind of edit."""
    asked = ["Was anything else added?", "Was anything else taken away?"]
    kinds = {clause.kind for clause in clauses}
    if "" in kinds:
        asked.append("Did anything change that this does not ask for?")
    elif not kinds & {"look", "effect", "picture"}:
        asked.append("Was anything else moved, or given another color, size or shape?")
        if not any(word in clause.text.lower() for clause in clauses for word in ("background", "backdrop")):
            asked.append("Was the background changed too?")
    return tuple(
        Atom(PRESERVED, f"{_EDIT.format(instruction=instruction)} {question}", wanted=False) for question in asked
    )


def _words(clause: Clause) -> dict[str, str]:
    """The clause's parts; "all the cars" are gone only when none of them is left."""
    words = {"clause": clause.text, **clause.parts}
    if "x" in words:
        words["any_x"] = re.sub(r"^(?:all|both|each|every)\b", "any", words["x"], flags=re.IGNORECASE)
        words["any_x"] = re.sub(
            r"^any (?=the |these |those |his |her |its |their |my |our )", "any of ", words["any_x"]
        )
    return words


class AtomicScorer(VqaScorer):
    """Scores by the answers to `atoms_of` an instruction; `Score.asked` shows which questions failed.

    The questions of an aspect have equal weight. An instruction with a reference is not split, because its words
    describe a picture that is not part of the edit: one question covers it, followed by those about unwanted change.
    """

    prompts = PROMPTS
    """Version of the questions and of the patterns that choose them."""

    def posed(self, request: ScoreRequest) -> Sequence[Posed]:
        """The questions about one edit."""
        return [(atom.aspect, atom.wanted, question) for atom, question in atomic_questions(request)]


def atomic_questions(request: ScoreRequest) -> tuple[tuple[Atom, Question], ...]:
    """Every question about one edit, each with its aspect and wanted answer."""
    pair = (request.source, request.edited)
    whole = dict(questions_for(request))
    atoms = atoms_of(request.instruction)
    posed = [(atom, Question(images=pair, text=atom.text + END)) for atom in atoms]
    if request.references:
        posed = [(atom, question) for atom, question in posed if not atom.wanted and atom.aspect == "preserved"]
        posed.insert(0, (Atom("followed", whole["followed"].words), whole["followed"]))
    return (*posed, (Atom("clean", whole["clean"].words), whole["clean"]))
