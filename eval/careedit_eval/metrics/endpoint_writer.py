"""Texts about pictures from any OpenAI-compatible chat endpoint, as VIEScore needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from PIL import Image

from careedit.errors import CareEditError
from careedit.scoring.openai_answers import text_of
from careedit.scoring.openai_http import Endpoint, EndpointConfig, Time, Unanswered, picture_part, run
from careedit.scoring.sent import TEXT, probe_picture
from careedit_eval.errors import MetricError

MAX_TOKENS = 512
"""Room for marks and a sentence."""
Prompt = tuple[Sequence[Image.Image], str]


class EndpointWriter:
    """A `careedit_eval.metrics.vie.Writer` over HTTP, several prompts at once, at temperature 0."""

    backend = "openai"

    def __init__(self, config: EndpointConfig, *, time: Time | None = None) -> None:
        """Raises `InputError` if the key's environment variable holds no usable key; sends nothing yet."""
        self.config, self.model, self.revision = config, config.model, config.revision
        self._endpoint = Endpoint(config, time)

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """Where to and what is sent (`careedit.scoring.sent`)."""
        picture = probe_picture()
        return self._endpoint.settings(self._body(((picture, picture), TEXT)))

    def write(self, prompts: Sequence[Prompt]) -> list[str | CareEditError]:
        """See `careedit_eval.metrics.vie.Writer`."""
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
