"""A client of the HTTP API that takes and gives the library's own records: what the demo and the benchmark speak with."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any, Self

import httpx2
from PIL import Image, ImageChops

from careedit.errors import InputError
from careedit.images import decode_image
from careedit.records import EditRequest, EditResult, EditTrace
from careedit_deployments.errors import OverloadedError, ServingError


class Client:
    """Edits over HTTP; safe to share between threads. As a context, it closes its connections at the end."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 300.0) -> None:
        """`url` is the server's address without a path; `timeout` is in seconds."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def edit(self, request: EditRequest, *, model: str | None = None) -> EditResult:
        """One request's images and traces.

        Raises `InputError` where the server refuses the request, `OverloadedError` where it is to come later,
        `ServingError` where the edit fails.
        """
        document = self._post(_fields(request, model), _files(request))
        images = tuple(decode_image(base64.b64decode(one["b64_json"])) for one in document["data"])
        traces = tuple(EditTrace.model_validate_json(json.dumps(one)) for one in document["careedit"]["traces"])
        return EditResult(images=images, traces=traces)

    def _post(self, fields: Mapping[str, str], files: list[Any]) -> dict[str, Any]:
        try:
            answer = self._http.post("/v1/images/edits", data=dict(fields), files=files)
        except httpx2.HTTPError as error:
            raise ServingError(f"The server gives no answer ({type(error).__name__}); see whether it runs.") from error
        if answer.is_success:
            document: dict[str, Any] = answer.json()
            return document
        message = _message(answer)
        if answer.status_code == 429:
            raise OverloadedError(message, float(answer.headers.get("retry-after", "1")))
        raise InputError(message) if answer.status_code < 500 else ServingError(message)


def _fields(request: EditRequest, model: str | None) -> dict[str, str]:
    wanted: dict[str, Any] = {
        "prompt": request.instruction,
        "n": request.n,
        "model": model,
        "seed": request.seed,
        "steps": request.steps,
        "guidance": request.guidance,
        "top_k": request.top_k,
        "refine_mask": request.refine_mask or None,
        "expert": request.expert if isinstance(request.expert, str) else json.dumps(dict(request.expert)),
        "early_filter": None if request.early_filter is None else request.early_filter.model_dump_json(),
    }
    return {name: str(value) for name, value in wanted.items() if value is not None}


def _files(request: EditRequest) -> list[Any]:
    files = [("image[]", ("source.png", _png(request.image), "image/png"))]
    files += [("image[]", ("reference.png", _png(picture), "image/png")) for picture in request.references]
    if request.mask is not None:
        transparent = request.image.copy()
        transparent.putalpha(ImageChops.invert(request.mask))  # OpenAI's masks: alpha 0 = edit
        files.append(("mask", ("mask.png", _png(transparent), "image/png")))
    return files


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _message(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"The server answered {answer.status_code}; see its log."
