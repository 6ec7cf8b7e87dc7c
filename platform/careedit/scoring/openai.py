"""Judges behind any OpenAI-compatible chat endpoint that takes pictures: vLLM, SGLang, hosted ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any, Literal

import httpx2
from PIL import Image

from careedit.errors import InputError
from careedit.files import png_data_url
from careedit.scoring.base import Answer, Question
from careedit.scoring.openai_answers import (
    RESPONSE_FORMAT,
    TOP_LOGPROBS,
    WRITE_JSON,
    has_logprobs,
    yes_by_json,
    yes_by_logprobs,
)
from careedit.scoring.openai_http import EndpointConfig, Poster, Time, Unanswered
from careedit.scoring.sent import probe_question

Way = Literal["logprobs", "json"]

MAX_JSON_TOKENS = 64
"""Room for the written answer."""
MAX_URLS = 64
"""Encoded pictures that are kept: an edit's questions share theirs, and a large picture takes megabytes."""
LOGPROBS_REFUSED = (400, 422, 501)
"""Status codes of endpoints that know the field and do not offer it."""


class EndpointAsker:
    """An `Asker` that sends every question to an endpoint, several at once.

    P(yes) comes from the logprobs of the answer's first token where the endpoint offers them, otherwise from strict
    JSON; which of the two is settled once, by a question about a grey square, because numbers of the two kinds do not
    compare. `revision` names the way. An answer that cannot be had is an error after the configured attempts.
    """

    backend = "openai"

    def __init__(self, config: EndpointConfig, *, time: Time | None = None) -> None:
        """Raises `InputError` where the key's environment variable holds none; nothing is sent yet."""
        self.config = config
        self.model = config.model
        self._way: Way | None = None if config.answers == "auto" else config.answers
        self._settings: dict[Way, Mapping[str, str]] = {}
        self._poster = Poster(config, _key(config.api_key_env), time or Time())

    @property
    def revision(self) -> str:
        """The configured revision and the way of answering, e.g. "unknown/logprobs"; "/auto" until it is settled."""
        return f"{self.config.revision}/{self._way or 'auto'}"

    @property
    def settings(self) -> Mapping[str, str]:
        """Where to and what is sent (`careedit.scoring.sent`): another address, seed or field makes other scores."""
        way = self._way or "logprobs"
        if way not in self._settings:
            self._settings[way] = self._poster.settings(self._body(probe_question(), {}, way))
        return self._settings[way]

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """See `careedit.scoring.base.Asker`."""
        return _finished(self._ask_all(questions)) if questions else []

    async def _ask_all(self, questions: Sequence[Question]) -> list[Answer]:
        free = asyncio.Semaphore(self.config.concurrency)
        urls: dict[int, str] = {}

        async def one(index: int, question: Question, way: Way) -> Answer:
            async with free:
                try:
                    body = self._body(question, urls, way)
                    # A generator of its own, so that no answer's waits depend on who came first.
                    reply = await self._poster.post(client, body, Random(f"{self.config.seed}:{index}"))
                    return Answer(yes=yes_by_logprobs(reply) if way == "logprobs" else yes_by_json(reply))
                except Unanswered as failure:
                    return Answer(error=str(failure))

        async with self._poster.client() as client:
            try:
                way = self._way = self._way or await self._settle(client)
            except Unanswered as failure:
                return [Answer(error=str(failure))] * len(questions)
            return await asyncio.gather(*(one(i, question, way) for i, question in enumerate(questions)))

    async def _settle(self, client: httpx2.AsyncClient) -> Way:
        """The way that the endpoint offers; raises `Unanswered` where it does not answer at all."""
        square = Image.new("RGB", (64, 64), (128, 128, 128))
        body = self._body(Question(images=(square,), text="Is this picture gray? Answer yes or no."), {}, "logprobs")
        try:
            reply = await self._poster.post(client, body, Random(f"{self.config.seed}:settle"))
        except Unanswered as failure:
            if failure.status in LOGPROBS_REFUSED and "logprob" in str(failure).lower():
                return "json"
            raise
        return "logprobs" if has_logprobs(reply) else "json"

    def _body(self, question: Question, urls: dict[int, str], way: Way) -> Mapping[str, Any]:
        """The request's document; `urls` as `_url_of` keeps them."""
        parts: list[dict[str, Any]] = [{"type": "text", "text": question.lead}] if question.lead else []
        parts += [{"type": "image_url", "image_url": {"url": _url_of(image, urls)}} for image in question.images]
        parts.append({"type": "text", "text": question.text + (WRITE_JSON if way == "json" else "")})
        body: dict[str, Any] = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": parts}],
            "temperature": 0,
            "seed": self.config.seed,
        }
        if way == "logprobs":
            body |= {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
        else:
            body |= {"max_tokens": MAX_JSON_TOKENS, "response_format": RESPONSE_FORMAT}
        return {name: value for name, value in {**body, **self.config.extra}.items() if value is not None}


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(f"The endpoint's key is to be in the environment variable {variable}, which is empty; set it.")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise InputError(
            f"The environment variable {variable} holds something that is no key; set it to the key alone."
        )
    return key


def _url_of(image: Image.Image, known: dict[int, str]) -> str:
    """The picture as a data URL of its PNG; `known` holds the last ones of pictures that are alive, by identity."""
    if id(image) not in known:
        if len(known) >= MAX_URLS:
            known.clear()
        known[id(image)] = png_data_url(image.convert("RGB"))
    return known[id(image)]


def _finished(work: Coroutine[Any, Any, list[Answer]]) -> list[Answer]:
    """The result of `work`, also where the caller's thread already runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
