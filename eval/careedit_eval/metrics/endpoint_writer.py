"""Texts about pictures from any OpenAI-compatible chat endpoint, as VIEScore needs them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from random import Random
from typing import Any

import httpx2
from PIL import Image

from careedit.errors import CareEditError, InputError
from careedit.files import png_data_url
from careedit.scoring.openai_answers import text_of
from careedit.scoring.openai_http import EndpointConfig, Poster, Time, Unanswered
from careedit.scoring.sent import TEXT, probe_picture
from careedit_eval.errors import MetricError

MAX_TOKENS = 512
"""Room for marks and a sentence."""
Prompt = tuple[Sequence[Image.Image], str]


class EndpointWriter:
    """A `careedit_eval.metrics.vie.Writer` over HTTP, several prompts at once, at temperature 0."""

    backend = "openai"

    def __init__(self, config: EndpointConfig, *, time: Time | None = None) -> None:
        """Raises `InputError` where the key's environment variable holds none; nothing is sent yet."""
        self.config, self.model, self.revision = config, config.model, config.revision
        key = None if config.api_key_env is None else os.environ.get(config.api_key_env, "").strip()
        if key == "":
            raise InputError(
                f"The endpoint's key is to be in the environment variable {config.api_key_env}, which is empty; set it."
            )
        self._poster = Poster(config, key, time or Time())

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """Where to and what is sent (`careedit.scoring.sent`)."""
        picture = probe_picture()
        return self._poster.settings(self._body(((picture, picture), TEXT)))

    def write(self, prompts: Sequence[Prompt]) -> list[str | CareEditError]:
        """See `careedit_eval.metrics.vie.Writer`."""
        # A thread of its own, as the caller's may already run an event loop.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self._write_all(prompts)).result()

    async def _write_all(self, prompts: Sequence[Prompt]) -> list[str | CareEditError]:
        free = asyncio.Semaphore(self.config.concurrency)

        async def one(client: httpx2.AsyncClient, index: int, prompt: Prompt) -> str | CareEditError:
            async with free:
                try:
                    reply = await self._poster.post(client, self._body(prompt), Random(f"{self.config.seed}:{index}"))
                    return written(reply)
                except Unanswered as failure:
                    return MetricError(str(failure))
                except CareEditError as error:
                    return error

        async with self._poster.client() as client:
            return await asyncio.gather(*(one(client, index, prompt) for index, prompt in enumerate(prompts)))

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        pictures, text = prompt
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": png_data_url(one.convert("RGB"))}} for one in pictures
        ]
        body = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}],
            "temperature": 0,
            "seed": self.config.seed,
            "max_tokens": MAX_TOKENS,
        }
        return {name: value for name, value in {**body, **self.config.extra}.items() if value is not None}


def written(reply: bytes) -> str:
    """The text of a chat completion; raises `MetricError` for a refusal, a cut-off answer and a reply without a text."""
    try:
        return text_of(reply)
    except Unanswered as failure:
        raise MetricError(str(failure)) from None
