"""What both baselines share: the editor, and requests and answers as HTTP has them."""

from __future__ import annotations

from typing import Any

import torch
from starlette.datastructures import FormData, UploadFile

from careedit.editor import Editor, load_editor
from careedit.files import png_base64
from careedit.images import decode_image
from careedit.records import EditRequest, EditResult
from careedit_deployments.bench.baselines import BaselineSettings

ROUTE = "/v1/images/edits"
"""Where edits are asked for."""


def load(settings: BaselineSettings, device: str | None = None) -> Editor:
    """The editor; `device` is the one that the server picks where the settings leave it open."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return load_editor(
        settings.expert_set,
        device=settings.device or device,
        dtype=None if settings.dtype is None else getattr(torch, settings.dtype),
        application=settings.application,
    )


def request_of(form: FormData) -> EditRequest:
    """The edit that a form asks for."""
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
    """The pictures as PNG, and how they were made."""
    data = [{"b64_json": png_base64(picture)} for picture in result.images]
    return {"data": data, "careedit": {"traces": [trace.model_dump(mode="json") for trace in result.traces]}}
