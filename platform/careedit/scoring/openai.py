"""Judges behind any OpenAI-compatible chat endpoint that takes pictures: vLLM, SGLang, hosted ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, Literal

from cachetools import LRUCache, cached
from openai import AsyncOpenAI
from PIL import Image

from careedit.scoring.openai_answers import (
    RESPONSE_FORMAT,
    TOP_LOGPROBS,
    WRITE_JSON,
    has_logprobs,
    yes_by_json,
    yes_by_logprobs,
)
from careedit.scoring.openai_http import Endpoint, EndpointConfig, Time, Unanswered, picture_part, run
from careedit.scoring.scorer import Answer, Question
from careedit.scoring.sent import probe_question

Way = Literal["logprobs", "json"]

MAX_JSON_TOKENS = 64
"""Room for the written answer."""
MAX_PICTURES = 64
"""Encoded pictures that are kept during one call: an edit's questions share theirs, and each may take megabytes."""
LOGPROBS_REFUSED = (400, 422, 501)
"""Status codes of endpoints that know the field and do not offer it."""


class EndpointAsker:
    """An `Asker` that sends every question to an endpoint, several at once.

    P(yes) comes from the logprobs of the answer's first token if the endpoint offers them, otherwise from strict JSON.
    Numbers of the two kinds do not compare, so one question about a grey square settles which is used, and `revision`
    names it. A question without an answer after the configured attempts has an error.
    """

    backend = "openai"

    def __init__(self, config: EndpointConfig, *, time: Time | None = None) -> None:
        """Raises `InputError` if the key's environment variable holds no usable key; sends nothing yet."""
        self.config = config
        self.model = config.model
        self._way: Way | None = None if config.answers == "auto" else config.answers
        self._settings: dict[Way, Mapping[str, str]] = {}
        self._endpoint = Endpoint(config, time)

    @property
    def revision(self) -> str:
        """The configured revision and the way of answering, e.g. "unknown/logprobs"; "/auto" until it is settled."""
        return f"{self.config.revision}/{self._way or 'auto'}"

    @property
    def settings(self) -> Mapping[str, str]:
        """Where to and what is sent (`careedit.scoring.sent`): another address, seed or field makes other scores."""
        way = self._way or "logprobs"
        if way not in self._settings:
            self._settings[way] = self._endpoint.settings(self._body(probe_question(), way))
        return self._settings[way]

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """See `careedit.scoring.scorer.Asker`."""
        return run(self._ask_all(questions)) if questions else []

    async def _ask_all(self, questions: Sequence[Question]) -> list[Answer]:
        async with self._endpoint.client() as client:
            try:
                way = self._way = self._way or await self._settle(client)
            except Unanswered as failure:
                return [Answer(error=str(failure))] * len(questions)
            # By identity: pictures have no hash, and the questions keep these alive.
            encode = cached(LRUCache[int, dict[str, Any]](MAX_PICTURES), key=id)(picture_part)
            found = await self._endpoint.post_all(
                client,
                [partial(self._body, question, way, encode) for question in questions],
                yes_by_logprobs if way == "logprobs" else yes_by_json,
            )
        return [Answer(error=str(one)) if isinstance(one, Unanswered) else Answer(yes=one) for one in found]

    async def _settle(self, client: AsyncOpenAI) -> Way:
        """The way that the endpoint offers; raises `Unanswered` if it gives no answer at all."""
        square = Image.new("RGB", (64, 64), (128, 128, 128))
        body = self._body(Question(images=(square,), text="Is this picture gray? Answer yes or no."), "logprobs")
        try:
            reply = await self._endpoint.post(client, body, Random(f"{self.config.seed}:settle"))
        except Unanswered as failure:
            if failure.status in LOGPROBS_REFUSED and "logprob" in str(failure).lower():
                return "json"
            raise
        return "logprobs" if has_logprobs(reply) else "json"

    def _body(
        self, question: Question, way: Way, encode: Callable[[Image.Image], dict[str, Any]] = picture_part
    ) -> Mapping[str, Any]:
        """The request's document."""
        content: list[dict[str, Any]] = [{"type": "text", "text": question.lead}] if question.lead else []
        content += [encode(image) for image in question.images]
        content.append({"type": "text", "text": question.text + (WRITE_JSON if way == "json" else "")})
        fields: dict[str, Any] = {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
        if way == "json":
            fields = {"max_tokens": MAX_JSON_TOKENS, "response_format": RESPONSE_FORMAT}
        return self._endpoint.body(content, fields)
