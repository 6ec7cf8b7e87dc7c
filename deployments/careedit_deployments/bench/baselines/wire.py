"""Code of both baselines: loading the editor, reading requests and writing answers."""

from __future__ import annotations

from typing import Any

import torch
from starlette.datastructures import FormData, UploadFile

from careedit.editor import Editor, load_editor
from careedit.files import png_base64
from careedit.images import decode_image
from careedit.records import EditRequest, EditResult
from careedit_deployments.bench.baselines import BaselineSettings
from careedit_deployments.state.clock import unix_time

ROUTE = "/v1/images/edits"
"""Path of the edit route."""


def load(settings: BaselineSettings, device: str | None = None) -> Editor:
    """Load the editor. `device` is used if the settings name none."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return load_editor(
        settings.expert_set,
        device=settings.device or device,
        dtype=None if settings.dtype is None else getattr(torch, settings.dtype),
        application=settings.application,
    )


def request_of(form: FormData) -> EditRequest:
    """The request in a form."""
    pictures = [decode_image(one.file.read()) for one in form.getlist("image[]") if isinstance(one, UploadFile)]
    numbers: dict[str, Any] = {name: int(str(form[name])) for name in ("n", "seed", "steps") if name in form}
    return EditRequest(
        image=pictures[0],
        references=tuple(pictures[1:]),
        instruction=str(form["prompt"]),
        expert=str(form.get("expert", "auto")),
        **numbers,
    )


def answer_of(result: EditResult) -> dict[str, Any]:
    """The answer in careedit's shape, which its client checks: images as PNG, and traces."""
    width, height = result.image.size
    details = {"image_tokens": 0, "text_tokens": 0}
    usage = {f"{side}_tokens": 0 for side in ("input", "output", "total")}
    return {
        "created": int(unix_time()),
        "data": [{"b64_json": png_base64(picture)} for picture in result.images],
        "output_format": "png",
        "quality": "auto",
        "size": f"{width}x{height}",
        "usage": {**usage, "input_tokens_details": details, "output_tokens_details": details},
        "careedit": {
            "id": "baseline",
            "arm": "baseline",
            "traces": [trace.model_dump(mode="json") for trace in result.traces],
        },
    }
