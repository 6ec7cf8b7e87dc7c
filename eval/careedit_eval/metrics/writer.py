"""Judges that write: an endpoint gets a message of texts and images, and answers with a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Protocol

from PIL import Image

from careedit.errors import CareEditError
from careedit.scoring.openai_answers import text_of
from careedit.scoring.openai_http import Endpoint, EndpointConfig, Time, Unanswered, picture_part, run
from careedit.scoring.sent import TEXT, probe_picture
from careedit_eval.errors import MetricError

MAX_TOKENS = 512
"""The default maximum length of an answer, for marks and a sentence."""
Message = Sequence[Image.Image | str]
"""The texts and images of one question, in the order in which they are sent."""


class Writer(Protocol):
    """Writes about images."""

    backend: str
    """The kind of the judge, as in `careedit.scoring.scorer.JudgeIdentity`."""
    model: str
    """The name of the model, as in that record."""
    revision: str
    """The version of the model, as in that record."""

    def write(self, messages: Sequence[Message], *, turn: int = 0) -> list[str | CareEditError]:
        """One text per message, in order, or the error in its place. Another `turn` is another seed of sampling."""
        ...


class EndpointWriter:
    """A `Writer` over HTTP, several messages at once, at temperature 0."""

    backend = "openai"

    def __init__(
        self,
        config: EndpointConfig,
        *,
        max_tokens: int | None = MAX_TOKENS,
        system: str = "",
        time: Time | None = None,
    ) -> None:
        """`max_tokens` limits an answer; None leaves the limit to the endpoint. `system` is the system's message.

        Raises `InputError` if the key's environment variable holds no usable key; sends nothing yet.
        """
        self.config, self.model, self.revision = config, config.model, config.revision
        self._endpoint, self._max_tokens, self._system = Endpoint(config, time), max_tokens, system

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """The address and what is sent to it (`careedit.scoring.sent`)."""
        picture = probe_picture()
        return self._endpoint.settings(self._body((picture, picture, TEXT)))

    def write(self, messages: Sequence[Message], *, turn: int = 0) -> list[str | CareEditError]:
        """See `Writer`."""
        return run(self._write_all(messages, turn))

    async def _write_all(self, messages: Sequence[Message], turn: int) -> list[str | CareEditError]:
        async with self._endpoint.client() as client:
            bodies = [partial(self._body, message, turn) for message in messages]
            found = await self._endpoint.post_all(client, bodies, text_of)
        return [MetricError(str(one)) if isinstance(one, Unanswered) else one for one in found]

    def _body(self, message: Message, turn: int = 0) -> Mapping[str, Any]:
        content = [{"type": "text", "text": part} if isinstance(part, str) else picture_part(part) for part in message]
        fields: dict[str, Any] = {"seed": self.config.seed + turn, "max_tokens": self._max_tokens}
        if self._system:
            fields["messages"] = [{"role": "system", "content": self._system}, {"role": "user", "content": content}]
        return self._endpoint.body(content, fields)
