"""What every judge is: a `Scorer` that scores edits, standing on an `Asker` that answers yes/no questions about pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

from PIL import Image
from pydantic import Field, model_validator

from careedit.errors import InputError
from careedit.images import turn_note
from careedit.record import Record
from careedit.records import MAX_INSTRUCTION_CHARACTERS, Picture

Probability = Annotated[float, Field(ge=0, le=1)]


class JudgeIdentity(Record):
    """Who judged: two scores may be compared only if this is equal."""

    backend: str
    """"transformers" or "openai"."""
    model: str
    """Hub id, path's name or the endpoint's model name."""
    revision: str
    """Commit or hash of the weights; what the endpoint calls its model version, or "unknown"."""
    prompts: str
    """Version of the questions, e.g. "vqa-1"; one that changes a word changes its version."""


class Question(Record):
    """One yes/no question about some pictures."""

    lead: str = ""
    """What is said before the pictures, so that a model that reads from left to right looks at them with it in mind."""
    images: tuple[Image.Image, ...]
    """RGB pictures, in the order in which the text speaks of them."""
    text: str
    """The question; it can be answered by yes or no."""

    @property
    def words(self) -> str:
        """All that is said."""
        return f"{self.lead} {self.text}".lstrip()


class Answer(Record):
    """P("yes") against "no", or why there is none; never both."""

    yes: Probability | None = None
    """Probability of yes, given that the answer is yes or no."""
    error: str | None = None
    """Why the answer could not be read, as a sentence."""

    @model_validator(mode="after")
    def _check_one(self) -> Answer:
        if (self.yes is None) == (self.error is None):
            raise InputError("An answer holds either a probability or an error; give exactly one of them.")
        return self


class Asker(Protocol):
    """Answers yes/no questions about pictures: the one thing a backend has to do."""

    backend: str
    """As in `JudgeIdentity`."""
    model: str
    """As in `JudgeIdentity`."""
    revision: str
    """As in `JudgeIdentity`."""

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, in their order. Deterministic. A question that fails has an error for an answer."""
        ...


def identity_of(asker: Asker, prompts: str) -> JudgeIdentity:
    """Who judges with these questions; an asker may settle its revision with its first answer."""
    return JudgeIdentity(backend=asker.backend, model=asker.model, revision=asker.revision, prompts=prompts)


class ScoreRequest(Record):
    """One edit to be judged."""

    source: Picture
    """The picture before."""
    edited: Picture
    """The picture after; of the source's size."""
    instruction: str = Field(min_length=1, max_length=MAX_INSTRUCTION_CHARACTERS)
    """What was to change."""
    references: tuple[Picture, ...] = ()
    """What the edit was to take something from; at most one."""

    @model_validator(mode="after")
    def _check_sizes(self) -> ScoreRequest:
        if self.edited.size != self.source.size:
            raise InputError(
                f"The edit is {self.edited.width}x{self.edited.height}{turn_note(self.edited)} but its source is "
                f"{self.source.width}x{self.source.height}{turn_note(self.source)}; judge an edit at its source's size.",
                field="edited",
            )
        if len(self.references) > 1:
            raise InputError(
                f"{len(self.references)} references were given; one reference is supported.", field="references"
            )
        return self


class AskedQuestion(Record):
    """One of the questions behind a score."""

    aspect: str
    """"followed", "preserved" or "clean"."""
    question: str
    """Its text."""
    answer: Answer
    """What the judge said."""
    wanted: bool = True
    """The answer that speaks for the edit: True = yes."""


class Score(Record):
    """What a judge thinks of an edit; probabilities, or an error in place of all of them."""

    followed: Probability | None = None
    """P(the instruction was carried out)."""
    preserved: Probability | None = None
    """P(nothing else was changed)."""
    clean: Probability | None = None
    """P(the picture has no artefacts)."""
    overall: Probability | None = None
    """`followed * preserved * clean`: the edit is right only if all three hold."""
    judge: JudgeIdentity
    """Who judged."""
    asked: tuple[AskedQuestion, ...] = ()
    """The questions that the numbers come from: the score's explanation."""
    error: str | None = None
    """Why there is no score, as a sentence."""

    @model_validator(mode="after")
    def _check_whole(self) -> Score:
        numbers = (self.followed, self.preserved, self.clean, self.overall)
        if any((number is None) != (self.error is not None) for number in numbers):
            raise InputError("A score holds either all of its numbers or an error; give exactly one of them.")
        return self


class Scorer(Protocol):
    """Judges edits."""

    @property
    def identity(self) -> JudgeIdentity:
        """Who judges."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in their order. Deterministic; an unreadable answer is an error, never a number."""
        ...
