"""Reading a body completely and as UTF-8.

Starlette's parser accepts a form that ends anywhere, and reads text that is not UTF-8 as Latin-1. Here a form must end with
its closing boundary, so that an interrupted upload never becomes an edit without its mask.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from functools import partial

from anyio.to_thread import run_sync
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from careedit.records import MAX_INSTRUCTION_CHARACTERS
from careedit_deployments.errors import FieldError

PICTURE = re.compile(r"(?P<kind>image|mask)(\[\d{0,2}\])?")
"""Names of form fields with images: OpenAI's names and those of other clients."""

MAX_FILES = 17
"""Maximum number of files in a form: OpenAI's 16 images and a mask."""

MAX_FIELDS = 100
"""Maximum number of text fields in a form."""

TEXT_BYTES = 64 * 2**10
"""Maximum size of a text field, in bytes. An image in a text field is limited only by the body."""

_ASCII_BASED = frozenset({"utf-8", "ascii", "iso8859-1", "cp1252"})
"""Charsets that a client may declare: text in one of them is accepted if it is valid UTF-8."""

_FORM = "careedit.form"


async def read_form(request: Request) -> FormData:
    """The complete form; `close_form` closes its files. Raises `FieldError`."""
    known: FormData | None = request.scope.get(_FORM)
    if known is not None:
        return known
    options = _options(request)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _unreadable("its content type has no boundary")
    async with aclosing(request.stream()) as stream:
        parser = _Parser(request.headers, stream, boundary)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            if error.message.startswith("Too many files"):
                raise FieldError(f"A form has at most {MAX_FILES} files; send fewer.", "body") from None
            if error.message.startswith("Too many fields"):
                raise FieldError(f"A form has at most {MAX_FIELDS} text fields; send fewer.", "body") from None
            damaged = error.message.startswith("Invalid multipart")
            reason = (
                "its parts are not separated by the declared boundary and CR LF, or the header of a part is too long"
                if damaged
                else error.message.rstrip(".")
            )
            raise _unreadable(reason) from None
    request.scope[_FORM] = form
    return form


async def close_form(request: Request) -> None:
    """Close the files of the form, if a form was read."""
    form: FormData | None = request.scope.get(_FORM)
    if form is not None:
        await form.close()


async def read_json(request: Request) -> bytes:
    """The body of a JSON request without a byte order mark; the model checks whether it is JSON.

    Raises `FieldError` if an object has a field twice: parsers take the last one, so a mask could be lost.
    """
    check_charset(_options(request).get(b"charset", b"").decode("latin-1"), "content-type")
    data = (await request.body()).removeprefix(codecs.BOM_UTF8)
    with suppress(ValueError, RecursionError):
        await run_sync(partial(json.loads, object_pairs_hook=once), data)
    return data


def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The object of these fields, for `json.loads`. Raises `FieldError` for a field that is given twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)[:64]
        raise FieldError(f"The field {name!r} is given twice; give it once.", name)
    return fields


def check_charset(name: str, param: str) -> None:
    """Refuse a declared charset that UTF-8 cannot be read as. Raises `FieldError`."""
    try:
        known = not name.strip() or codecs.lookup(name.strip()).name in _ASCII_BASED
    except (LookupError, ValueError):  # a name with a NUL raises the latter
        known = False
    if not known:
        raise FieldError(
            f"The charset {name[:40]!r} is not supported; send the text as UTF-8.", param, "unsupported_value"
        )


def _options(request: Request) -> dict[bytes, bytes]:
    return parse_options_header(request.headers.get("content-type", ""))[1]


def _unreadable(reason: str) -> FieldError:
    return FieldError(
        f"The form cannot be read: {reason[:1].lower()}{reason[1:]}. Send multipart/form-data according to RFC 7578.",
        "body",
        "invalid_form",
    )


class _Parser(MultiPartParser):
    """Starlette's parser, which here requires the end, names a field that is too long, and reads text only as UTF-8."""

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], boundary: bytes) -> None:
        check_charset(
            parse_options_header(headers["content-type"])[1].get(b"charset", b"").decode("latin-1"), "content-type"
        )
        super().__init__(headers, self._watched(stream), max_files=MAX_FILES, max_fields=MAX_FIELDS)
        self._closing = b"\r\n--" + boundary + b"--"
        self.ended = False
        """Whether the parser has read the closing boundary."""

    async def _watched(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The stream; its end raises `FieldError` unless the form has ended. The parser closes its files at an error."""
        tail = b"\r\n"  # a form without parts begins with its closing boundary
        async for chunk in stream:
            had_ended = self.ended
            yield chunk  # parsed when the generator resumes
            rest = chunk
            if not had_ended:
                window = tail + chunk
                tail = window[-len(self._closing) :]
                rest = window.partition(self._closing)[2] if self.ended else b""
            if rest.strip():
                raise _unreadable("there is more after its closing boundary")
        if not self.ended:
            raise FieldError(
                "The form is incomplete: its closing boundary is missing, so a part may be missing too. Send the whole body; "
                "nothing was edited.",
                "body",
                "incomplete_body",
            )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Limit the size of text fields before Starlette does, whose error does not name the field."""
        part = self._current_part
        if part.file is None and PICTURE.fullmatch(part.field_name):
            part.data.extend(data[start:end])  # an image as a data URL, limited by the size of the body
            return
        if part.file is None and len(part.data) + end - start > TEXT_BYTES:
            own = (
                f" (a prompt has {MAX_INSTRUCTION_CHARACTERS:,} characters at most)"
                if part.field_name == "prompt"
                else ""
            )
            raise FieldError(
                f"The field {part.field_name[:64]!r} is longer than {TEXT_BYTES:,} bytes, the limit of a text field{own}. "
                "Shorten it; send images as files, in the fields image, image[] and mask.",
                part.field_name[:64],
                "string_too_long",
            )
        super().on_part_data(data, start, end)

    def on_headers_finished(self) -> None:
        """Refuse a charset or transfer encoding that this server does not read."""
        super().on_headers_finished()
        part = self._current_part
        headers = dict(part.item_headers)
        coding = headers.get(b"content-transfer-encoding", b"binary").strip().lower()
        if coding not in (b"7bit", b"8bit", b"binary"):
            raise FieldError(
                f"The part {part.field_name[:64]!r} has the content-transfer-encoding {coding[:40].decode('latin-1')!r}; send "
                "it as binary.",
                part.field_name[:64],
                "unsupported_value",
            )
        if part.file is None:
            kind = parse_options_header(headers.get(b"content-type", b""))
            check_charset(kind[1].get(b"charset", b"").decode("latin-1"), part.field_name[:64])

    def on_part_end(self) -> None:
        """Read a text field as UTF-8; the bytes of an image without a file name also count as a file."""
        part = self._current_part
        if part.file is not None:
            super().on_part_end()
            return
        data = bytes(part.data)
        try:
            self.items.append((part.field_name, data.decode("utf-8")))
        except UnicodeDecodeError:
            if not PICTURE.fullmatch(part.field_name):
                raise FieldError(
                    f"The field {part.field_name[:64]!r} is not UTF-8; send the text as UTF-8.", part.field_name[:64]
                ) from None
            self.items.append((part.field_name, UploadFile(io.BytesIO(data), size=len(data))))

    def on_end(self) -> None:
        """The parser has read the closing boundary."""
        self.ended = True
