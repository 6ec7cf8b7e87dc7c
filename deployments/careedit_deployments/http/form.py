"""Reading the body of an edit: a form or JSON comes in, checked fields and undecoded pictures come out."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from anyio.to_thread import run_sync
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from careedit.errors import InputError
from careedit_deployments.http.errors import FieldError, validation_problem
from careedit_deployments.http.schema import UNSUPPORTED, EditBody, EditFields, ImageRef

MAX_PICTURES = 2
"""The source and a reference."""

_IMAGE = re.compile(r"image(\[\d{0,2}\])?")
_NESTED = re.compile(r"(\w+)\[(\w+)\]", re.ASCII)


@dataclass(frozen=True, eq=False)
class EditInput:
    """An edit as it came in: nothing is decoded yet."""

    fields: EditFields
    """What is wanted."""
    pictures: tuple[bytes, ...]
    """Files of the source and the references; of the references alone if a session has the source."""
    mask: bytes | None
    """The mask's file."""


async def read_edit(request: Request) -> EditInput:
    """The body of `POST /v1/images/edits`. Raises `FieldError`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = await _from_form(request)
    elif kind == "application/json":
        found = await run_sync(_from_json, await request.body())
    else:
        raise FieldError(
            f"The body is {kind or 'of no stated type'}; send multipart/form-data or application/json.",
            "content-type",
            "unsupported_media_type",
        )
    _check_together(found)
    return found


def parse(model: type[BaseModel], data: Any, *, strict: bool = False) -> Any:
    """`data` (JSON as bytes, or an object) as `model`. Raises `FieldError`, naming the first flaw's field."""
    try:
        if isinstance(data, bytes):
            return model.model_validate_json(data, strict=strict)
        return model.model_validate(data, strict=strict)
    except ValidationError as error:
        flaws = error.errors(include_url=False, include_context=False)
        for flaw in flaws:  # a field that is not supported is told before one that is merely wrong
            name = str(flaw["loc"][-1]) if flaw["loc"] else ""
            if flaw["type"] == "extra_forbidden" and name in UNSUPPORTED:
                raise unsupported(name) from None
        problem = validation_problem(flaws)
        raise FieldError(problem.message, problem.param or "body", problem.code or "invalid_value") from None
    except InputError as error:  # the early filter is a record of careedit's, which speaks for itself
        raise FieldError(str(error), "early_filter") from None


def unsupported(name: str) -> FieldError:
    """The error for a field that others have and this server has not."""
    return FieldError(f"{name} is not supported: {UNSUPPORTED[name]}.", name, "unsupported_parameter")


async def _from_form(request: Request) -> EditInput:
    form = await request.form(max_files=16, max_fields=100, max_part_size=64 * 2**10)
    texts: dict[str, Any] = {}
    pictures: list[UploadFile] = []
    masks: list[UploadFile] = []
    for name, value in form.multi_items():
        is_image = _IMAGE.fullmatch(name) is not None
        if isinstance(value, UploadFile) and (is_image or name == "mask"):
            (pictures if is_image else masks).append(value)
        elif isinstance(value, UploadFile):
            if name in UNSUPPORTED:
                raise unsupported(name)
            raise FieldError(f"The field {name!r} takes no file; files are image, image[] and mask.", name)
        elif is_image or name == "mask":
            raise FieldError(f"The field {name!r} holds text; send the picture as a file.", name)
        elif value != "":  # an empty field of a form is an absent one
            _put(texts, name, value)
    if len(pictures) > MAX_PICTURES:
        raise _too_many(len(pictures), "image")
    if len(masks) > 1:
        raise FieldError("The field 'mask' is given twice; give one mask.", "mask")
    fields = parse(EditFields, texts)
    files = [await file.read() for file in (*pictures, *masks)]
    return EditInput(fields, tuple(files[: len(pictures)]), files[-1] if masks else None)


def _put(texts: dict[str, Any], name: str, value: str) -> None:
    """Sort in one text field; `early_filter[candidates]` (as OpenAI's clients write an object) and JSON text nest."""
    nested = _NESTED.fullmatch(name)
    if nested:
        inner = texts.setdefault(nested[1], {})
        if not isinstance(inner, dict) or nested[2] in inner:
            raise FieldError(f"The field {name!r} is given twice; give it once.", nested[1])
        inner[nested[2]] = value
        return
    if name in texts:
        raise FieldError(f"The field {name!r} is given twice; give it once.", name)
    if name in ("early_filter", "expert") and value.lstrip().startswith("{"):
        try:
            texts[name] = json.loads(value)
        except ValueError:
            raise FieldError(f"The field {name!r} starts like JSON and is none; correct it.", name) from None
    else:
        texts[name] = value


def _from_json(data: bytes) -> EditInput:
    body: EditBody = parse(EditBody, data, strict=True)
    if len(body.images) > MAX_PICTURES:
        raise _too_many(len(body.images), "images")
    pictures = tuple(picture_bytes(image, f"images[{i}]") for i, image in enumerate(body.images))
    return EditInput(body, pictures, None if body.mask is None else picture_bytes(body.mask, "mask"))


def picture_bytes(image: ImageRef, param: str) -> bytes:
    """The file of a picture in a JSON body, still encoded. Raises `FieldError`."""
    if image.file_id is not None:
        raise FieldError(
            "file_id is not supported: this server keeps no files; give image_url, a data URL.",
            f"{param}.file_id",
            "unsupported_parameter",
        )
    text = image.image_url
    if text is None:
        raise FieldError(
            "The picture has no image_url; give a data URL.", f"{param}.image_url", "missing_required_parameter"
        )
    if text[:8].lower().startswith(("http:", "https:", "file:", "ftp:")):
        raise FieldError(
            "This server fetches no pictures from elsewhere; send the picture itself, as a data URL.",
            f"{param}.image_url",
            "unsupported_value",
        )
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise FieldError("The data URL is not base64; write data:image/png;base64,...", f"{param}.image_url")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FieldError("The picture is no base64; encode the whole file.", f"{param}.image_url") from None


def _check_together(found: EditInput) -> None:
    fields = found.fields
    if not found.pictures and fields.session is None:
        name = "images" if isinstance(fields, EditBody) else "image"
        raise FieldError(f"The field {name!r} is missing; give the picture.", name, "missing_required_parameter")
    if len(found.pictures) > 1 and fields.session is not None:
        name = "images" if isinstance(fields, EditBody) else "image"
        raise FieldError("The session has the source; give one picture, the reference, or none.", name)
    if fields.partial_images and not fields.stream:
        raise FieldError(
            "partial_images needs stream; set stream to true or leave partial_images out.", "partial_images"
        )
    if fields.output_format == "png" and fields.output_compression not in (None, 100):
        raise FieldError(
            "A PNG is compressed without loss; leave output_compression out or choose jpeg or webp.",
            "output_compression",
        )
    if fields.refine_mask and found.mask is None:
        raise FieldError("refine_mask was asked for without a mask; give a mask or leave it out.", "refine_mask")


def _too_many(count: int, param: str) -> FieldError:
    return FieldError(f"{count} pictures were given; give the source and at most one reference.", param)
