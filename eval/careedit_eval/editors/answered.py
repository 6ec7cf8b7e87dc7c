"""The image of a service's answer: as base64 inside it, or at an address, as OpenAI's API allows both."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from careedit.errors import InputError
from careedit.images import DEFAULT_LIMITS
from careedit.net import Destinations, FetchError, fetch, names_of
from careedit_eval.editors.base import EditFailed
from careedit_eval.suite import Arm

LONGEST_WAIT = 60.0
"""The longest pause between two attempts, in seconds, even if a service asks for a longer one."""
FIRST_WAIT = 0.5
"""Seconds before the second attempt. They double for each later one, minus up to half at random."""


class PassingFailure(EditFailed):
    """A failure that may pass, so the request is sent again."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the service asks to wait; 0 if it does not say."""


def retrying(attempts: int, sleep: Callable[[float], None]) -> Retrying:
    """Calls a function up to `attempts` times while it raises `PassingFailure`, and raises the last one."""
    return Retrying(
        retry=retry_if_exception_type(PassingFailure),
        stop=stop_after_attempt(attempts),
        wait=_pause,
        sleep=sleep,
        reraise=True,
    )


def _pause(state: RetryCallState) -> float:
    """Seconds before the next attempt: a growing pause, or what the service asks for if that is longer."""
    failure = None if state.outcome is None else state.outcome.exception()
    asked = failure.retry_after if isinstance(failure, PassingFailure) else 0.0
    grown: float = FIRST_WAIT * 2.0 ** (state.attempt_number - 1) * random.uniform(0.5, 1)
    return min(LONGEST_WAIT, max(grown, asked))


class AnsweredPictures:
    """Reads the images of one service.

    A service chooses the address that it answers, so the address may lead to public hosts only (`careedit.net`), to the
    service's own host, which the user named, and to the arm's `picture_hosts`. The key is sent to the service's own origin
    and nowhere else.
    """

    def __init__(
        self, arm: Arm, headers: Mapping[str, str], sleep: Callable[[float], None], *, max_bytes: int | None = None
    ) -> None:
        """`headers` contain the key; `max_bytes` is the largest file, by default that of `careedit.images`."""
        self._arm, self._headers, self._sleep = arm, headers, sleep
        self._max_bytes = max_bytes or DEFAULT_LIMITS.max_bytes
        own = urlsplit(str(arm.url)).hostname or ""
        hosts = {*names_of(own), *(host.lower() for host in arm.picture_hosts)}
        self._allowed = Destinations(
            hosts,
            "The picture's address in the service's answer",
            "https://example.org/picture.png",
            f"add it to picture_hosts of the set {arm.name!r} if it is to be read",
        )

    def read(self, answer: Mapping[str, Any]) -> tuple[bytes, float]:
        """The file of an answer's first image, and the seconds to read it. Raises `EditFailed`."""
        data = answer.get("data")
        first = data[0] if isinstance(data, list) and data else None
        inside, address = (first.get(name) if isinstance(first, dict) else None for name in ("b64_json", "url"))
        if isinstance(inside, str) and inside:
            return _decoded(inside), 0.0
        if isinstance(address, str) and address.startswith("data:"):
            return _decoded(address), 0.0
        if isinstance(address, str) and address:
            return self._fetched(address)
        raise EditFailed("The service's answer holds no picture, neither b64_json nor url in data[0]; look at its log.")

    def _fetched(self, address: str) -> tuple[bytes, float]:
        try:
            url = urljoin(str(self._arm.url), address)  # some services answer a path on their own host
        except ValueError:
            url = address  # refused below
        headers = self._headers if _origin(url) == _origin(str(self._arm.url)) else {}

        def read() -> tuple[bytes, float]:
            started = time.perf_counter()
            try:
                data = fetch(
                    url, self._allowed, max_bytes=self._max_bytes, timeout_s=self._arm.timeout, headers=headers
                )
            except InputError as error:
                raise EditFailed(str(error)) from error
            except FetchError as error:
                failure = PassingFailure if error.again else EditFailed
                raise failure(f"The service edited, but its picture could not be read: {error}") from error
            return data, time.perf_counter() - started

        return retrying(self._arm.attempts, self._sleep)(read)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None


def _decoded(text: str) -> bytes:
    """Decode base64, alone or as a data: address; line breaks are allowed, as in RFC 2045."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise EditFailed("The service's answer holds no picture: its data: address is not base64; look at its log.")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise EditFailed("The service's answer holds no picture: it is not base64; look at its log.") from error
