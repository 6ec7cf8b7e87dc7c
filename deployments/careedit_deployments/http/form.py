"""Reading the body of an edit: a form or JSON becomes checked fields and undecoded images."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from anyio.to_thread import run_sync
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from careedit.errors import InputError
from careedit_deployments.errors import FieldError
from careedit_deployments.http.errors import validation_problem
from careedit_deployments.http.pictures import bytes_of, is_data_url
from careedit_deployments.http.reading import PICTURE, check_charset, read_form, read_json
from careedit_deployments.http.schema import UNSUPPORTED, EditBody, EditFields, ImageRef
from careedit_deployments.http.services import services_of

_ADDRESS = re.compile(r"\s*(?!data:)[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_NESTED = re.compile(r"(\w+)\[(\w+)\]", re.ASCII)


@dataclass(frozen=True, eq=False)
class EditInput:
    """An edit as the client sent it; no image is decoded yet."""

    fields: EditFields
    """The checked fields, without the images."""
    pictures: tuple[bytes, ...]
    """Files of the source and the references. If a session has the source, files of the references alone."""
    mask: bytes | None
    """File of the mask; None: the whole image may change."""
    notes: tuple[str, ...] = ()
    """Sentences about fields that were accepted without effect; the response repeats them."""


@dataclass(eq=False)
class FormParts:
    """The parts of a form by their kind: text fields, images, masks."""

    texts: dict[str, Any] = field(default_factory=dict)
    """Text by field name; objects are nested."""
    pictures: list[bytes] = field(default_factory=list)
    """Files of image, image[] and image[0], in the order of the form."""
    masks: list[bytes] = field(default_factory=list)
    """Files of mask and mask[], in the order of the form."""
    notes: list[str] = field(default_factory=list)
    """Sentences about parts that were not used."""


async def read_edit(
    request: Request,
    fields: type[EditFields] = EditFields,
    body: type[EditBody] = EditBody,
    *,
    session: str | None = None,
) -> EditInput:
    """Read the body of an edit: a form with the fields of `fields`, or JSON as in `body`. Raises `FieldError`.

    `session` is the session that the route's path names; its source replaces the first image.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        form = await _from_form(await read_form(request), fields)
    elif kind == "application/json":
        data = await read_json(request)
        form = await run_sync(_from_json, data, body)
    else:
        raise FieldError(
            f"The body is {kind or 'of no stated type'}; send multipart/form-data or application/json.",
            "content-type",
            "unsupported_media_type",
        )
    if session is not None:
        if form.fields.session not in (None, session):
            raise FieldError("The session is the one in the path; leave the field session out.", "session")
        form = replace(form, fields=form.fields.model_copy(update={"session": session}))
    _check_together(form)
    _check_count(request, form)
    return form


def parse(model: type[BaseModel], data: Any, *, strict: bool = False) -> Any:
    """`data` (JSON as bytes, or an object) as `model`. Raises `FieldError`, which names the first wrong field."""
    try:
        if isinstance(data, bytes):
            return model.model_validate_json(data, strict=strict)
        return model.model_validate(data, strict=strict)
    except ValidationError as error:
        violations = error.errors(include_url=False, include_context=False)
        for violation in violations:  # an unsupported field is reported before a wrong value
            name = str(violation["loc"][-1]) if violation["loc"] else ""
            if violation["type"] == "extra_forbidden" and name in UNSUPPORTED:
                raise unsupported(name) from None
        problem = validation_problem(violations)
        raise FieldError(problem.message, problem.param or "body", problem.code or "invalid_value") from None
    except InputError as error:  # raised by the library's own record of the early filter
        raise FieldError(str(error), "early_filter") from None


def unsupported(name: str) -> FieldError:
    """The error for a field of other APIs that this server does not support."""
    return FieldError(f"{name} is not supported: {UNSUPPORTED[name]}.", name, "unsupported_parameter")


async def _from_form(form: FormData, model: type[EditFields]) -> EditInput:
    parts = await sort_form(form)
    if len(parts.masks) > 1:
        raise FieldError("The field 'mask' is given twice; give one mask.", "mask")
    fields: EditFields = parse(model, parts.texts)
    mask = parts.masks[0] if parts.masks else None
    return EditInput(fields, tuple(parts.pictures), mask, (*parts.notes, *fields.notes))


async def sort_form(form: FormData) -> FormParts:
    """Files, data URLs and text of a form. Raises `FieldError`.

    Some gateways send a text part in addition to the file of the same name. It is not used, and a note says so. Without the
    file it is refused, because otherwise the edit would run without its mask.
    """
    parts = FormParts()
    files: dict[str, list[bytes]] = {"image": parts.pictures, "mask": parts.masks}
    named: dict[str, list[tuple[str, str]]] = {"image": [], "mask": []}
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
            named[picture["kind"]].append((name, value))
        elif name == "_charset_":  # where browsers say how they encoded the form
            check_charset(value, name)
        else:
            _put(parts.texts, name, value)
    for kind, texts in named.items():
        if texts:
            await run_sync(_add_texts, files[kind], texts, parts.notes)  # megabytes of base64
    return parts


def _add_texts(files: list[bytes], texts: Sequence[tuple[str, str]], notes: list[str]) -> None:
    """Add the images of one field that were sent as text: data URLs."""
    urls = [(name, value) for name, value in texts if is_data_url(value)]
    if files and urls:
        name = urls[0][0]
        raise FieldError(f"The field {name!r} comes as a file and as a data URL; send one of them.", name)
    files += [_decoded(value, name) for name, value in urls]
    for name, value in texts:
        if (name, value) in urls:
            continue
        if not files:
            raise FieldError(
                f"The field {name!r} holds text ({value[:40]!r}); send the image as a file, or as a data URL.", name
            )
        notes.append(f"The field {name!r} has a file and the text {value[:40]!r}; the text was not used.")


def _put(texts: dict[str, Any], name: str, value: str) -> None:
    """Add one text field; `early_filter[candidates]` (as OpenAI's clients write an object) and JSON text nest."""
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


def _from_json(data: bytes, model: type[EditBody]) -> EditInput:
    body: EditBody = parse(model, data, strict=True)
    pictures = tuple(picture_bytes(image, f"images[{i}]") for i, image in enumerate(body.images))
    return EditInput(body, pictures, None if body.mask is None else picture_bytes(body.mask, "mask"), body.notes)


def picture_bytes(image: ImageRef, param: str) -> bytes:
    """The undecoded file of an image in a JSON body. Raises `FieldError`."""
    if image.file_id is not None:
        raise FieldError(
            "file_id is not supported: this server does not keep files; give image_url, a data URL.",
            f"{param}.file_id",
            "unsupported_parameter",
        )
    text = image.image_url
    if text is None:
        raise FieldError(
            "The image has no image_url; give a data URL.", f"{param}.image_url", "missing_required_parameter"
        )
    if _ADDRESS.match(text):
        raise FieldError(
            "This server does not fetch images from other servers; send the image itself, as a data URL.",
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
    """The error for `response_format: url` where results may not be stored as files."""
    return FieldError(f"{reason}; leave response_format out.", "response_format", "unsupported_value")


def _check_together(form: EditInput) -> None:
    fields = form.fields
    if not form.pictures and fields.session is None:
        name = "images" if isinstance(fields, EditBody) else "image"
        raise FieldError(f"The field {name!r} is missing; give the image.", name, "missing_required_parameter")
    if fields.stream and fields.response_format == "url":
        raise no_address("Streams and jobs return images as b64_json")
    if fields.session is not None and fields.response_format == "url":
        raise no_address("A session stores its images itself")
    for name in ("partial_images", "candidate_images"):
        if getattr(fields, name) and not fields.stream:
            raise FieldError(f"{name} needs stream; set stream to true or leave {name} out.", name)
    if fields.output_format == "png" and fields.output_compression not in (None, 100):
        raise FieldError(
            "A PNG is compressed without loss; leave output_compression out or choose jpeg or webp.",
            "output_compression",
        )
    if fields.refine_mask and form.mask is None:
        raise FieldError("refine_mask needs a mask; give one, or leave refine_mask out.", "refine_mask")


def _check_count(request: Request, form: EditInput) -> None:
    """Refuse more references than the named arm takes; without a name, than any arm takes."""
    name = "images" if isinstance(form.fields, EditBody) else "image"
    arms = services_of(request).backend.arms
    named = [arm for arm in arms.values() if form.fields.model in (arm.name, arm.expert_set)]
    limit = max((arm.references for arm in named or arms.values()), default=1)
    in_session = form.fields.session is not None
    if len(form.pictures) > limit + (not in_session):
        source = "in addition to the source of the session" if in_session else "the source included"
        raise FieldError(
            f"{len(form.pictures)} images were given, {source}; the served base takes {limit} "
            f"reference{'' if limit == 1 else 's'}, so give at most {limit + (not in_session)}.",
            name,
        )
