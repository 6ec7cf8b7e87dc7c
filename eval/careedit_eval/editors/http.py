"""A running service that edits: `POST /v1/images/edits` as in OpenAI's API, with careedit's own fields if it is careedit."""

from __future__ import annotations

import json
import os
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
from PIL import Image

from careedit.errors import ImageError, InputError
from careedit.files import png_bytes
from careedit.images import decode_image
from careedit_eval.editors.answered import AnsweredPictures, PassingFailure, retrying
from careedit_eval.editors.base import Edited, EditFailed, EditWork
from careedit_eval.suite import Arm

PASSING = (408, 409, 425, 429)
"""Status codes after which a request is repeated, in addition to all from 500 on."""


class HttpEditor:
    """Asks a service. Overload and lost connections are retried; anything else becomes the error of the row."""

    def __init__(self, arm: Arm, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._arm, self._sleep = arm, sleep
        self.concurrency = arm.concurrency
        self._pictures = AnsweredPictures(arm, _headers(arm), sleep)
        self._client = httpx2.Client(headers=_headers(arm), timeout=arm.timeout, follow_redirects=False)
        # An editor lives as long as its worker needs it, and is not notified of the end.
        weakref.finalize(self, self._client.close)

    def edit(self, work: EditWork) -> Edited:
        """Make one edit. Raises `EditFailed` with the service's message."""
        arm = self._arm
        fields = {"prompt": work.instruction, "n": "1", "output_format": "png"}
        if arm.model is not None:
            fields["model"] = arm.model
        if arm.extensions:
            fields |= {"seed": str(work.seed), "expert": arm.expert}
            fields |= {name: str(value) for name in ("steps", "top_k") if (value := getattr(arm, name)) is not None}
            if arm.early_filter is not None:
                fields["early_filter"] = arm.early_filter.model_dump_json()
        files = [
            ("image[]", (f"{i}.png", png_bytes(one), "image/png"))
            for i, one in enumerate((work.source, *work.references))
        ]
        if work.mask is not None:
            files.append(("mask", ("mask.png", png_bytes(_transparent(work.mask)), "image/png")))
        answer, seconds = self._post(fields, files)
        data, reading = self._pictures.read(answer)
        try:
            image = decode_image(data)
        except ImageError as error:
            raise EditFailed(f"The picture in the service's answer cannot be read: {error}") from error
        trace = _first_trace(answer)
        looks = ((trace or {}).get("filter") or {}).get("looks", ())
        return Edited(
            image,
            seconds + reading,
            None if trace is None else int(trace["nfe"]),
            sum(len(look["alive"]) for look in looks) if trace is not None else None,
            None if trace is None else json.dumps(trace),
        )

    def _post(self, fields: Mapping[str, str], files: list[Any]) -> tuple[dict[str, Any], float]:
        """The answer of the successful attempt, and its seconds."""

        def post() -> tuple[dict[str, Any], float]:
            started = time.perf_counter()
            try:
                answer = self._client.post(f"{_root(self._arm)}/images/edits", data=dict(fields), files=files)
            except httpx2.HTTPError as error:
                raise PassingFailure(f"{type(error).__name__} {error}".strip()) from error
            if answer.status_code == 200:
                return _document(answer), time.perf_counter() - started
            why = f"{answer.status_code}: {_message(answer)}"
            if answer.status_code in PASSING or answer.status_code >= 500:
                raise PassingFailure(why, _retry_after(answer))
            raise EditFailed(f"The service refused the edit ({why}).")

        attempts = self._arm.attempts
        try:
            return retrying(attempts, self._sleep)(post)
        except PassingFailure as error:
            raise EditFailed(f"The service did not edit in {attempts} attempts ({error}); look at its log.") from error


def service_identity(arm: Arm) -> dict[str, str]:
    """What a service says of its model, from /v1/models; without that, its address and the arm's `revision`.

    Raises `InputError` if nothing answers, because a run with errors only is useless.
    """
    try:
        with httpx2.Client(headers=_headers(arm), timeout=min(arm.timeout, 30), follow_redirects=False) as client:
            answer = client.get(f"{_root(arm)}/models")
    except httpx2.HTTPError as error:
        raise InputError(f"The service {arm.url} does not answer ({error}); start it or correct url.") from error
    known: dict[str, str] = {"model": arm.model or "default", "revision": arm.revision}
    if answer.status_code == 404:
        return {**known, "url": _root(arm)}
    if answer.status_code != 200:
        raise InputError(
            f"The service {arm.url} answers {answer.status_code} ({_message(answer)}); correct url or key."
        )
    listed = [one for one in _document(answer).get("data") or () if isinstance(one, dict)]
    names = [str(one.get("id")) for one in listed]
    if arm.model is not None and arm.model not in names:
        raise InputError(f"The service {arm.url} has no model {arm.model!r}; it has {', '.join(names) or 'none'}.")
    if arm.model is None and len(listed) > 1:
        raise InputError(f"The service {arm.url} has several models ({', '.join(names)}); name one as model.")
    stated = next((one for one in listed if arm.model in (None, one.get("id"))), {})
    # The time of its start is not part of its identity.
    record = {key: value for key, value in stated.items() if key not in ("created", "object")}
    return (
        {**known, "stated": json.dumps(record, sort_keys=True)} if _is_hashed(record) else {**known, "url": _root(arm)}
    )


def _is_hashed(record: Mapping[str, Any]) -> bool:
    """Whether a model's record contains a hash, so that another version has another record."""
    return "sha256" in json.dumps(record)


def _headers(arm: Arm) -> dict[str, str]:
    if arm.api_key_env is None:
        return {}
    key = os.environ.get(arm.api_key_env)
    if not key:
        raise InputError(f"The environment variable {arm.api_key_env} is not set; put the key of {arm.url} there.")
    return {"authorization": f"Bearer {key}"}


def _root(arm: Arm) -> str:
    return str(arm.url).rstrip("/")


def _transparent(mask: Image.Image) -> Image.Image:
    """The mask in OpenAI's form: the image may change where alpha is 0."""
    shown = Image.new("RGBA", mask.size, (0, 0, 0, 255))
    shown.putalpha(mask.point([255 - value for value in range(256)]))
    return shown


def _document(answer: httpx2.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError as error:
        raise EditFailed("The service's answer is not JSON; check that the address is that of an API.") from error
    return found if isinstance(found, dict) else {}


def _message(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return " ".join(answer.text.split())[:200] or answer.reason_phrase


def _retry_after(answer: httpx2.Response) -> float:
    try:
        return max(0.0, float(answer.headers.get("retry-after", "0")))
    except ValueError:
        return 0.0


def _first_trace(answer: Mapping[str, Any]) -> dict[str, Any] | None:
    traces = (answer.get("careedit") or {}).get("traces") or ()
    return traces[0] if traces and "nfe" in traces[0] else None
