"""VIEScore-style judging (arXiv 2312.14867): a model writes marks from 0 to 10, and the lower one of each pair counts.

SC is the lower one of "was it done" and "was nothing else changed", PQ that of "natural" and "no artefacts", and the overall
score is sqrt(SC x PQ). The questions are careedit's own, so the numbers cannot be compared with a leaderboard. The published
code replaces an unreadable reply by a random mark; here it is an error, and it is counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Protocol

from PIL import Image

from careedit.errors import CareEditError
from careedit.scoring.openai_answers import text_of, without_thought
from careedit.scoring.openai_http import Endpoint, EndpointConfig, Time, Unanswered, picture_part, run
from careedit.scoring.scorer import JudgeIdentity
from careedit.scoring.sent import TEXT, probe_picture, settings_of
from careedit_eval.errors import MetricError
from careedit_eval.metrics.base import ScoreItem, ask_about
from careedit_eval.metrics.options import JudgeOptions
from careedit_eval.records import Measurement, Metric, MetricSpec, Output

PROMPTS = "vie-1"
"""Version of the questions below."""
SCALE = 10.0
"""The highest mark; the lowest is 0."""
MAX_TOKENS = 512
"""The maximum length of an answer, for marks and a sentence."""
OUTPUTS = ("vie_sc", "vie_pq", "vie")
Prompt = tuple[Sequence[Image.Image], str]
"""Images and a question about them."""
FORM = ' Reply with JSON only: {{"score": [{first}, {second}], "reasoning": "one sentence"}}, both marks from 0 to 10.'
CONSISTENCY = (
    'The first picture was edited into the second by this instruction: "{instruction}". Give two marks. First, how far the '
    "instruction was carried out: 0 not at all, 10 entirely. Second, how well everything else was left as it was: 0 "
    "another picture, 10 nothing else changed." + FORM.format(first="done", second="kept")
)
QUALITY = (
    "Look at this picture by itself. Give two marks. First, how natural it looks in light, perspective and proportion: 0 "
    "not at all, 10 entirely. Second, how free it is of blur, seams, distorted shapes and other artefacts: 0 full of them, "
    "10 without any." + FORM.format(first="natural", second="clean")
)


class Writer(Protocol):
    """Writes about pictures."""

    backend: str
    """The kind of the judge, as in `careedit.scoring.scorer.JudgeIdentity`."""
    model: str
    """The name of the model, as in that record."""
    revision: str
    """The version of the model, as in that record."""

    def write(self, prompts: Sequence[Prompt]) -> list[str | CareEditError]:
        """One text per prompt, in order, or the error in its place."""
        ...


class VieScore:
    """`vie_sc`, `vie_pq` and `vie`, from 0 to 10; two prompts per edit."""

    needs: frozenset[str] = frozenset()

    def __init__(self, writer: Writer) -> None:
        self.writer = writer

    @property
    def spec(self) -> MetricSpec:
        """See `careedit_eval.records.Metric`."""
        judge = JudgeIdentity(
            backend=self.writer.backend, model=self.writer.model, revision=self.writer.revision, prompts=PROMPTS
        )
        return MetricSpec(
            name="viescore",
            outputs=tuple(Output(name=name, better="higher") for name in OUTPUTS),
            protocol=PROMPTS,
            backbone=f"{judge.backend} {judge.model}",
            revision=judge.revision,
            preprocessing="edit resized to the source's size, Pillow's bicubic",
            reference="source and text",
            text_field="instruction",
            dtype="as served",
            code_version=2,  # since then the settings say what the judge is sent
            settings=settings_of(self.writer),
        )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""

        def prompts_of(item: ScoreItem) -> tuple[Prompt, Prompt]:
            source = item.pictures.source
            edited = item.edited_at(source.size)
            return ((source, edited), CONSISTENCY.replace("{instruction}", item.sample.instruction)), (
                (edited,),
                QUALITY,
            )

        def ask(prompts: list[tuple[Prompt, Prompt]]) -> list[Measurement]:
            replies = self.writer.write([one for both in prompts for one in both])
            return [_measurement(*both) for both in zip(replies[::2], replies[1::2], strict=True)]

        return ask_about(batch, prompts_of, ask)


def combine(consistency: Sequence[float], quality: Sequence[float]) -> tuple[float, float, float]:
    """(SC, PQ, overall): the minimum of each pair, and the root of their product."""
    sc, pq = min(consistency), min(quality)
    return sc, pq, math.sqrt(sc * pq)


def read_marks(reply: str) -> tuple[float, float]:
    """The two marks of a reply. Raises `MetricError` unless it has exactly two numbers from 0 to 10.

    A thought before the answer is removed. Exactly one JSON object of the answer must have the marks.
    """
    try:
        answer = without_thought(reply) if reply.strip() else reply
    except Unanswered as failure:
        raise MetricError(str(failure)) from None
    try:
        found = [one["score"] for one in _objects(answer) if "score" in one]
    except (ValueError, RecursionError):
        found = []
    marks: Any = found[0] if len(found) == 1 else None
    right = isinstance(marks, list) and len(marks) == 2
    if not right or any(isinstance(m, bool) or not isinstance(m, int | float) or not 0 <= m <= SCALE for m in marks):
        said = " ".join(answer.split())[:80]
        raise MetricError(
            f"The judge's reply {said!r} holds no two marks from 0 to 10; use a judge that keeps to JSON."
        )
    return float(marks[0]), float(marks[1])


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, one after another. Raises ValueError at a brace that begins none."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        found, end = decoder.raw_decode(text, at)
        yield found
        at = text.find("{", end)


def _measurement(consistency: str | CareEditError, quality: str | CareEditError) -> Measurement:
    try:
        marks = []
        for reply in (consistency, quality):
            if isinstance(reply, CareEditError):
                raise reply
            marks.append(read_marks(reply))
    except CareEditError as error:
        return Measurement(error=str(error))
    return Measurement(values=dict(zip(OUTPUTS, combine(*marks), strict=True)))


class EndpointWriter:
    """A `Writer` over HTTP, several prompts at once, at temperature 0."""

    backend = "openai"

    def __init__(self, config: EndpointConfig, *, time: Time | None = None) -> None:
        """Raises `InputError` if the key's environment variable holds no usable key; sends nothing yet."""
        self.config, self.model, self.revision = config, config.model, config.revision
        self._endpoint = Endpoint(config, time)

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """The address and what is sent to it (`careedit.scoring.sent`)."""
        picture = probe_picture()
        return self._endpoint.settings(self._body(((picture, picture), TEXT)))

    def write(self, prompts: Sequence[Prompt]) -> list[str | CareEditError]:
        """See `Writer`."""
        return run(self._write_all(prompts))

    async def _write_all(self, prompts: Sequence[Prompt]) -> list[str | CareEditError]:
        async with self._endpoint.client() as client:
            bodies = [partial(self._body, prompt) for prompt in prompts]
            found = await self._endpoint.post_all(client, bodies, text_of)
        return [MetricError(str(one)) if isinstance(one, Unanswered) else one for one in found]

    def _body(self, prompt: Prompt) -> Mapping[str, Any]:
        pictures, text = prompt
        content = [*map(picture_part, pictures), {"type": "text", "text": text}]
        return self._endpoint.body(content, {"max_tokens": MAX_TOKENS})


def viescore(options: JudgeOptions) -> Metric:
    """VIEScore from its options."""
    if options.endpoint is None:
        raise MetricError("viescore needs a judge that writes; give the fields of an endpoint under `endpoint`.")
    return VieScore(EndpointWriter(EndpointConfig(**options.endpoint)))
