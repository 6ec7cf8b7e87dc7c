"""Reading a body: whole or not at all, and as UTF-8 or not at all.

Starlette's parser takes a form that ends anywhere, and reads text that is not UTF-8 as Latin-1. Here a form must end with its
closing boundary, so that an upload that is cut off never becomes an edit without its mask.
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
"""Fields of a form that hold pictures, by OpenAI's names and by those that other clients give."""

MOST_FILES = 17
"""Files of a form: OpenAI's 16 pictures and a mask."""

MOST_FIELDS = 100
"""Text fields of a form."""

TEXT_BYTES = 64 * 2**10
"""Bytes of a text field; a picture's field is as long as the body may be."""

_ASCII_BASED = frozenset({"utf-8", "ascii", "iso8859-1", "cp1252"})
"""Charsets that a client may state: text in one of them that is valid UTF-8 is taken as UTF-8."""

_FORM = "careedit.form"


async def read_form(request: Request) -> FormData:
    """The form, complete; `close_form` closes its files. Raises `FieldError`."""
    known: FormData | None = request.scope.get(_FORM)
    if known is not None:
        return known
    options = _options(request)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _unreadable("its content type states no boundary")
    async with aclosing(request.stream()) as stream:
        parser = _Parser(request.headers, stream, boundary)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            if error.message.startswith("Too many files"):
                raise FieldError(f"A form takes {MOST_FILES} files at most; send fewer.", "body") from None
            if error.message.startswith("Too many fields"):
                raise FieldError(f"A form takes {MOST_FIELDS} text fields at most; send fewer.", "body") from None
            damaged = error.message.startswith("Invalid multipart")
            reason = (
                "its parts are not divided by the stated boundary and line ends of CR LF, or a part's header is too long"
                if damaged
                else error.message.rstrip(".")
            )
            raise _unreadable(reason) from None
    request.scope[_FORM] = form
    return form


async def close_form(request: Request) -> None:
    """Close the files of the form that was read, if one was."""
    form: FormData | None = request.scope.get(_FORM)
    if form is not None:
        await form.close()


async def read_json(request: Request) -> bytes:
    """The body of a JSON request without a byte order mark; whether it is JSON is for the model to find out.

    Raises `FieldError` where an object has a field twice: parsers take the last one, so a mask could be lost.
    """
    check_charset(_options(request).get(b"charset", b"").decode("latin-1"), "content-type")
    data = (await request.body()).removeprefix(codecs.BOM_UTF8)
    with suppress(ValueError, RecursionError):
        await run_sync(partial(json.loads, object_pairs_hook=_once), data)
    return data


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)[:64]
        raise FieldError(f"The field {name!r} is given twice; give it once.", name)
    return found


def check_charset(name: str, param: str) -> None:
    """Refuse text that is stated to be something else than UTF-8 can be taken for. Raises `FieldError`."""
    try:
        known = not name.strip() or codecs.lookup(name.strip()).name in _ASCII_BASED
    except (LookupError, ValueError):  # a name with a NUL is the latter
        known = False
    if not known:
        raise FieldError(
            f"The charset {name[:40]!r} is not supported; send the text as UTF-8.", param, "unsupported_value"
        )


def _options(request: Request) -> dict[bytes, bytes]:
    return parse_options_header(request.headers.get("content-type", ""))[1]


def _unreadable(reason: str) -> FieldError:
    return FieldError(
        f"The form cannot be read: {reason[:1].lower()}{reason[1:]}. Send multipart/form-data as RFC 7578 has it.",
        "body",
        "invalid_form",
    )


class _Parser(MultiPartParser):
    """Starlette's parser that notices the end, names a field that is too long, and reads text as UTF-8 only."""

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], boundary: bytes) -> None:
        check_charset(
            parse_options_header(headers["content-type"])[1].get(b"charset", b"").decode("latin-1"), "content-type"
        )
        super().__init__(headers, self._watched(stream), max_files=MOST_FILES, max_fields=MOST_FIELDS)
        self._closing = b"\r\n--" + boundary + b"--"
        self.ended = False
        """Whether the closing boundary came."""

    async def _watched(self, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The stream, whose end raises `FieldError` unless the form ended with it; the parser closes its files at an error."""
        tail = b"\r\n"  # a form without parts begins with its closing boundary
        async for chunk in stream:
            had_ended = self.ended
            yield chunk  # parsed when this goes on
            rest = chunk
            if not had_ended:
                window = tail + chunk
                tail = window[-len(self._closing) :]
                rest = window.partition(self._closing)[2] if self.ended else b""
            if rest.strip():
                raise _unreadable("more follows its closing boundary")
        if not self.ended:
            raise FieldError(
                "The form is cut off: its closing boundary is missing, so a part may be, too. Send the whole body; nothing "
                "was done.",
                "body",
                "incomplete_body",
            )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Count a text field's bytes before Starlette does, which would not name the field."""
        part = self._current_part
        if part.file is None and PICTURE.fullmatch(part.field_name):
            part.data.extend(data[start:end])  # a picture as a data URL; the gate counts the body's bytes
            return
        if part.file is None and len(part.data) + end - start > TEXT_BYTES:
            own = (
                f" (a prompt has {MAX_INSTRUCTION_CHARACTERS:,} characters at most)"
                if part.field_name == "prompt"
                else ""
            )
            raise FieldError(
                f"The field {part.field_name[:64]!r} is longer than {TEXT_BYTES:,} bytes, the limit of a text field{own}. "
                "Shorten it; pictures go in as files, in the fields image, image[] and mask.",
                part.field_name[:64],
                "string_too_long",
            )
        super().on_part_data(data, start, end)

    def on_headers_finished(self) -> None:
        """Refuse text in another charset or encoding than this server reads."""
        super().on_headers_finished()
        part = self._current_part
        headers = dict(part.item_headers)
        coding = headers.get(b"content-transfer-encoding", b"binary").strip().lower()
        if coding not in (b"7bit", b"8bit", b"binary"):
            raise FieldError(
                f"The part {part.field_name[:64]!r} has the content-transfer-encoding {coding[:40].decode('latin-1')!r}; send "
                "it as it is.",
                part.field_name[:64],
                "unsupported_value",
            )
        if part.file is None:
            kind = parse_options_header(headers.get(b"content-type", b""))
            check_charset(kind[1].get(b"charset", b"").decode("latin-1"), part.field_name[:64])

    def on_part_end(self) -> None:
        """Read a text field as UTF-8; a picture's bytes without a file's name are a file all the same."""
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
        """The closing boundary came."""
        self.ended = True
