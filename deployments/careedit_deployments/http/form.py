"""Reading the body of an edit: a form or JSON comes in, checked fields and undecoded pictures come out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from anyio.to_thread import run_sync
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from careedit.errors import InputError
from careedit_deployments.errors import FieldError
from careedit_deployments.http.amend import Amendment
from careedit_deployments.http.data_urls import bytes_of, is_data_url
from careedit_deployments.http.errors import validation_problem
from careedit_deployments.http.reading import PICTURE, check_charset, read_form, read_json
from careedit_deployments.http.schema import UNSUPPORTED, EditBody, EditFields, ImageRef
from careedit_deployments.http.services import services_of

_ADDRESS = re.compile(r"\s*(?!data:)[a-z][a-z0-9+.-]*:", re.IGNORECASE)
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
    notes: tuple[str, ...] = ()
    """What was taken and changes nothing, a sentence each; the answer says so."""


@dataclass(eq=False)
class FormParts:
    """A form, sorted: text fields, pictures, masks."""

    texts: dict[str, Any] = field(default_factory=dict)
    """Text by field; objects are nested."""
    pictures: list[bytes] = field(default_factory=list)
    """Files of image, image[] and image[0], in their order."""
    masks: list[bytes] = field(default_factory=list)
    """Files of mask and mask[]."""
    notes: list[str] = field(default_factory=list)
    """What was left unused."""


async def read_edit(request: Request, amendment: Amendment | None = None) -> EditInput:
    """The body of `POST /v1/images/edits`, or of a route whose body `amendment` makes one. Raises `FieldError`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        form = await read_form(request)
        found = await _from_form(form if amendment is None else amendment.form(form))
    elif kind == "application/json":
        data = await read_json(request)
        found = await run_sync(lambda: _from_json(data if amendment is None else amendment.json(data)))
    else:
        raise FieldError(
            f"The body is {kind or 'of no stated type'}; send multipart/form-data or application/json.",
            "content-type",
            "unsupported_media_type",
        )
    _check_together(found)
    _check_count(request, found)
    return found


def parse(model: type[BaseModel], data: Any, *, strict: bool = False) -> Any:
    """`data` (JSON as bytes, or an object) as `model`. Raises `FieldError`, naming the first violation's field."""
    try:
        if isinstance(data, bytes):
            return model.model_validate_json(data, strict=strict)
        return model.model_validate(data, strict=strict)
    except ValidationError as error:
        flaws = error.errors(include_url=False, include_context=False)
        for violation in flaws:  # a field that is not supported is told before one that is merely wrong
            name = str(violation["loc"][-1]) if violation["loc"] else ""
            if violation["type"] == "extra_forbidden" and name in UNSUPPORTED:
                raise unsupported(name) from None
        problem = validation_problem(flaws)
        raise FieldError(problem.message, problem.param or "body", problem.code or "invalid_value") from None
    except InputError as error:  # the early filter is a record of careedit's, which speaks for itself
        raise FieldError(str(error), "early_filter") from None


def unsupported(name: str) -> FieldError:
    """The error for a field that others have and this server has not."""
    return FieldError(f"{name} is not supported: {UNSUPPORTED[name]}.", name, "unsupported_parameter")


async def _from_form(form: FormData) -> EditInput:
    parts = await sort_form(form)
    if len(parts.masks) > 1:
        raise FieldError("The field 'mask' is given twice; give one mask.", "mask")
    fields: EditFields = parse(EditFields, parts.texts)
    mask = parts.masks[0] if parts.masks else None
    return EditInput(fields, tuple(parts.pictures), mask, (*parts.notes, *fields.notes))


async def sort_form(form: FormData) -> FormParts:
    """Files, data URLs and text of a form. Raises `FieldError`.

    Gateways send a text part beside the file under the same name; it is left unused, and noted. Without the file it is
    refused, because a mask that is only named would be an edit without its mask.
    """
    parts = FormParts()
    files: dict[str, list[bytes]] = {"image": parts.pictures, "mask": parts.masks}
    words: dict[str, list[tuple[str, str]]] = {"image": [], "mask": []}
    for name, value in form.multi_items():
        picture = PICTURE.fullmatch(name)
        if isinstance(value, UploadFile) and picture:
            data = await value.read()
            if data or value.filename:  # a browser sends an empty file without a name where none was chosen
                files[picture["kind"]].append(data)
        elif isinstance(value, UploadFile):
            if name in UNSUPPORTED:
                raise unsupported(name)
            raise FieldError(f"The field {name!r} takes no file; files are image, image[] and mask.", name)
        elif value.strip() == "":  # an empty field of a form is an absent one
            continue
        elif picture:
            words[picture["kind"]].append((name, value))
        elif name == "_charset_":  # where browsers say how they encoded the form
            check_charset(value, name)
        else:
            _put(parts.texts, name, value)
    for kind, found in files.items():
        await run_sync(_add_texts, found, words[kind], parts.notes)  # megabytes of base64
    return parts


def _add_texts(files: list[bytes], words: Sequence[tuple[str, str]], notes: list[str]) -> None:
    """Add the pictures of one field that came as text: data URLs."""
    urls = [(name, value) for name, value in words if is_data_url(value)]
    if files and urls:
        name = urls[0][0]
        raise FieldError(f"The field {name!r} comes as a file and as a data URL; send one of them.", name)
    files += [_decoded(value, name) for name, value in urls]
    for name, value in words:
        if (name, value) in urls:
            continue
        if not files:
            raise FieldError(
                f"The field {name!r} holds text ({value[:40]!r}); send the picture as a file, or as a data URL.", name
            )
        notes.append(f"The text {value[:40]!r} beside the picture in the field {name!r} was not used.")


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
        except (ValueError, RecursionError):
            raise FieldError(f"The field {name!r} starts like JSON but is not valid JSON; correct it.", name) from None
    else:
        texts[name] = value


def _from_json(data: bytes) -> EditInput:
    body: EditBody = parse(EditBody, data, strict=True)
    pictures = tuple(picture_bytes(image, f"images[{i}]") for i, image in enumerate(body.images))
    return EditInput(body, pictures, None if body.mask is None else picture_bytes(body.mask, "mask"), body.notes)


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
    if _ADDRESS.match(text):
        raise FieldError(
            "This server fetches no pictures from elsewhere; send the picture itself, as a data URL.",
            f"{param}.image_url",
            "unsupported_value",
        )
    return _decoded(text, f"{param}.image_url")


def _decoded(text: str, param: str) -> bytes:
    try:
        return bytes_of(text)
    except ValueError as error:
        raise FieldError(str(error), param) from None


def no_address(reason: str) -> FieldError:
    """The error for `response_format: url` where nothing but the answer may hold a picture."""
    return FieldError(f"{reason}; leave response_format out.", "response_format", "unsupported_value")


def _check_together(found: EditInput) -> None:
    fields = found.fields
    if not found.pictures and fields.session is None:
        name = "images" if isinstance(fields, EditBody) else "image"
        raise FieldError(f"The field {name!r} is missing; give the picture.", name, "missing_required_parameter")
    if fields.stream and fields.response_format == "url":
        raise no_address("A stream's pictures and a job's come as b64_json")
    if fields.session is not None and fields.response_format == "url":
        raise no_address("A session keeps its pictures")
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


def _check_count(request: Request, found: EditInput) -> None:
    """Refuse more references than the named arm takes, or, of arms that traffic chooses, the one that takes most."""
    name = "images" if isinstance(found.fields, EditBody) else "image"
    arms = services_of(request).backend.arms
    named = [arm for arm in arms.values() if found.fields.model in (arm.name, arm.expert_set)]
    most = max((arm.references for arm in named or arms.values()), default=1)
    kept = found.fields.session is not None
    if len(found.pictures) > most + (not kept):
        source = "beside the source, which the session has" if kept else "with the source among them"
        raise FieldError(
            f"{len(found.pictures)} pictures were given, {source}; the base that is served takes {most} "
            f"reference{'' if most == 1 else 's'}, so give at most {most + (not kept)}.",
            name,
        )
