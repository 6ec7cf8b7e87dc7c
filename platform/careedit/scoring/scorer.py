"""What every judge is: a `Scorer` of edits, based on an `Asker` that answers yes/no questions about pictures."""

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
    """The judge and its version: two scores may be compared only if this is equal."""

    backend: str
    """Kind of the judge: "transformers", "openai" or "open_clip"."""
    model: str
    """The model: its hub id, the name of its folder, or the endpoint's name for it."""
    revision: str
    """Commit or hash of the weights, or the endpoint's model version, or "unknown"."""
    prompts: str
    """Version of the questions, e.g. "vqa-1"; it changes with every change of their words."""


class Question(Record):
    """One yes/no question about some pictures."""

    lead: str = ""
    """Text before the pictures; a model that reads from left to right sees the pictures in its light."""
    images: tuple[Image.Image, ...]
    """RGB pictures, in the order in which the text mentions them."""
    text: str
    """The question itself, which can be answered by yes or no."""

    @property
    def words(self) -> str:
        """The lead and the question as one text."""
        return f"{self.lead} {self.text}".lstrip()


class Answer(Record):
    """P("yes") against "no", or the reason why it is missing; exactly one of the two."""

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
    """Answers yes/no questions about pictures: the only task of a backend."""

    backend: str
    """The backend's name, as in `JudgeIdentity.backend`."""
    model: str
    """The model's name, as in `JudgeIdentity.model`."""

    @property
    def revision(self) -> str:
        """The model's version, as in `JudgeIdentity.revision`."""
        ...

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, in their order. Deterministic. The answer of a question that fails is an error."""
        ...


def identity_of(asker: Asker, prompts: str) -> JudgeIdentity:
    """The identity of an asker with these questions; an asker may learn its revision from its first answer."""
    return JudgeIdentity(backend=asker.backend, model=asker.model, revision=asker.revision, prompts=prompts)


def check_size(edit: Image.Image, source: Image.Image, what: str, advice: str, *, field: str | None = None) -> None:
    """Raise `InputError` unless an edit has its source's size; the sentence begins with `what` and ends with `advice`."""
    if edit.size != source.size:
        sizes = [f"{picture.width}x{picture.height}{turn_note(picture)}" for picture in (edit, source)]
        raise InputError(f"{what} is {sizes[0]} but its source is {sizes[1]}; {advice}.", field=field)


class ScoreRequest(Record):
    """One edit to be judged."""

    source: Picture
    """The picture before the edit."""
    edited: Picture
    """The picture after the edit, of the source's size."""
    instruction: str = Field(min_length=1, max_length=MAX_INSTRUCTION_CHARACTERS)
    """The instruction, which says what to change."""
    references: tuple[Picture, ...] = ()
    """The reference of the edit, if it had one; at most one is supported."""

    @model_validator(mode="after")
    def _check_sizes(self) -> ScoreRequest:
        check_size(self.edited, self.source, "The edit", "judge an edit at its source's size", field="edited")
        if len(self.references) > 1:
            raise InputError(
                f"{len(self.references)} references were given; one reference is supported.", field="references"
            )
        return self


class AskedQuestion(Record):
    """One of the questions behind a score."""

    aspect: str
    """The aspect that it belongs to: "followed", "preserved" or "clean"."""
    question: str
    """The text of the question, lead included."""
    answer: Answer
    """The answer that the judge gave."""
    wanted: bool = True
    """The answer that counts in favour of the edit: True = yes."""


class Score(Record):
    """A judge's opinion of an edit: four probabilities, or an error in place of all of them."""

    followed: Probability | None = None
    """P(the instruction was carried out), 0 to 1."""
    preserved: Probability | None = None
    """P(everything else is unchanged), 0 to 1."""
    clean: Probability | None = None
    """P(the picture has no artefacts), 0 to 1."""
    overall: Probability | None = None
    """`followed * preserved * clean`: the edit is right only if all three hold."""
    judge: JudgeIdentity
    """The identity of the judge."""
    asked: tuple[AskedQuestion, ...] = ()
    """The questions that the numbers come from; they explain the score."""
    error: str | None = None
    """Why the score is missing, as a sentence."""

    @model_validator(mode="after")
    def _check_whole(self) -> Score:
        numbers = (self.followed, self.preserved, self.clean, self.overall)
        if any((number is None) != (self.error is not None) for number in numbers):
            raise InputError("A score holds either all of its numbers or an error; give exactly one of them.")
        return self


class Scorer(Protocol):
    """A judge that scores edits."""

    @property
    def identity(self) -> JudgeIdentity:
        """The identity of this judge."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score per request, in their order. Deterministic; an unreadable answer is an error, never a number."""
        ...
