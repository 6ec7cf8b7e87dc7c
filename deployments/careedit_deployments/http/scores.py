"""`POST /v1/scores`: ask the judge about a pair of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter
from PIL import Image
from pydantic import Field, StringConstraints
from starlette.requests import Request

from careedit.errors import InputError
from careedit.records import MAX_INSTRUCTION_CHARACTERS
from careedit.scoring import Score, ScoreRequest
from careedit_deployments.config import Limits
from careedit_deployments.errors import FieldError
from careedit_deployments.http.decoding import PictureFile
from careedit_deployments.http.form import picture_bytes
from careedit_deployments.http.openapi import error_answers
from careedit_deployments.http.pictures import check_together, decode_pictures, decoding_of, look_at
from careedit_deployments.http.schema import Body, ImageRef, ScoreAnswer
from careedit_deployments.http.services import caller_of, limiter_of, services_of
from careedit_deployments.http.sse import unless_gone

MAX_PAIRS = 16

router = APIRouter(tags=["scores"], responses=error_answers(400, 401, 413, 415, 429, 500, 503))


class Pair(Body):
    """An edit to be judged."""

    source: ImageRef
    """The picture before."""
    edited: ImageRef
    """The picture after; of the source's size."""
    instruction: Annotated[str, StringConstraints(min_length=1, max_length=MAX_INSTRUCTION_CHARACTERS)]
    """What was to change."""
    reference: ImageRef | None = None
    """What the edit was to take something from."""


class ScoreBody(Body):
    """Edits to be judged."""

    pairs: Annotated[list[Pair], Field(min_length=1, max_length=MAX_PAIRS)]
    """One or several, up to 16."""


@router.post("/v1/scores", operation_id="createScores")
async def create_scores(body: ScoreBody, request: Request) -> ScoreAnswer:
    """Judge edits: probabilities that the instruction was followed, the rest preserved, the picture clean.

    A pair that the judge could not read has an error in place of its numbers.
    """
    with limiter_of(request).hold(caller_of(request)):
        limits = services_of(request).config.limits
        files = await run_sync(lambda: [_files(pair, f"pairs[{i}]", limits) for i, pair in enumerate(body.pairs)])
        check_together([file for several in files for file in several], limits)
        return ScoreAnswer(scores=await unless_gone(request, lambda: _scores(request, body.pairs, files)))


def _files(pair: Pair, param: str, limits: Limits) -> list[PictureFile]:
    given = {"source": pair.source, "edited": pair.edited, "reference": pair.reference}
    return [
        look_at(picture_bytes(image, f"{param}.{name}"), f"{param}.{name}", limits)
        for name, image in given.items()
        if image is not None
    ]


async def _scores(request: Request, pairs: Sequence[Pair], files: Sequence[Sequence[PictureFile]]) -> list[Score]:
    """The scores, pair by pair; small pairs go to the judge together, as many as have the pixels of one large picture."""
    services, scores = services_of(request), list[Score]()
    first = 0
    while first < len(pairs):
        last, pixels = first, 0
        while last < len(pairs) and (last == first or pixels + _pixels(files[last]) <= services.config.limits.pixels):
            pixels += _pixels(files[last])
            last += 1
        group = [file for several in files[first:last] for file in several]
        async with decoding_of(request).memory.hold(caller_of(request).id, sum(file.memory for file in group)):
            pictures = iter(await decode_pictures(request, group))
            asked = [_question(number, pairs[number], pictures) for number in range(first, last)]
            del pictures
            scores += await services.backend.score(asked)
            del asked
        first = last
    return scores


def _question(number: int, pair: Pair, pictures: Iterator[Image.Image]) -> ScoreRequest:
    """Pair `number` with its decoded pictures, the next ones of `pictures`. Raises `FieldError`."""
    try:
        return ScoreRequest(
            source=next(pictures),
            edited=next(pictures),
            instruction=pair.instruction,
            references=() if pair.reference is None else (next(pictures),),
        )
    except InputError as error:
        raise FieldError(str(error), f"pairs[{number}].{error.field}") from None


def _pixels(files: Sequence[PictureFile]) -> int:
    return sum(file.pixels for file in files)
