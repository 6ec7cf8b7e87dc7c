"""Pictures in text: data URLs and bare base64, read as browsers read them (WHATWG Fetch, "data: URLs"; Infra, "forgiving-base64")."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

MOST_ESCAPED = 2**20
"""Characters of a percent-encoded picture, which Python decodes slowly; codes in base64 of any length are replaced quickly."""

_SPACES = b"\t\n\f\r "
_CODES = {code: sign for sign in "+/=-_\t\n\f\r " for code in (f"%{ord(sign):02X}", f"%{ord(sign):02x}")}
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_DATA = re.compile(r"\s*data:", re.IGNORECASE)
_BASE64 = re.compile(r";[ ]*base64$", re.IGNORECASE)


def is_data_url(text: str) -> bool:
    """Whether `text` is a data URL."""
    return _DATA.match(text) is not None


def bytes_of(text: str) -> bytes:
    """What a data URL or base64 holds. Raises `ValueError`, whose text is a sentence.

    White space, missing padding and the URL-safe alphabet are taken, `data:` in capitals, parameters of the media type, and
    percent-encoding.
    """
    if not is_data_url(text):
        return _decode(text)
    head, comma, body = text.partition(",")
    if not comma:
        raise ValueError("The data URL has no comma; write data:image/png;base64,...")
    is_base64 = _BASE64.search(head.strip()) is not None
    if is_base64 and "%" in body:
        for code, sign in _CODES.items():
            body = body.replace(code, sign)
    if "%" in body:
        if len(body) > MOST_ESCAPED:
            raise ValueError("The data URL is too long for percent-encoding; write data:image/png;base64,...")
        data = unquote_to_bytes(body)
        return _decode(data.decode("latin-1")) if is_base64 else data
    if is_base64:
        return _decode(body)
    raise ValueError("The data URL is not base64; write data:image/png;base64,...")


def _decode(text: str) -> bytes:
    try:
        data = text.encode("ascii").translate(_URL_SAFE, delete=_SPACES)
    except UnicodeEncodeError:
        raise ValueError("The picture is not base64; encode the whole file.") from None
    if len(data) % 4 == 0 and data.endswith(b"="):
        data = data[: -2 if data.endswith(b"==") else -1]
    if len(data) % 4 == 1 or b"=" in data:
        raise ValueError("The picture is not base64, or its end is missing; encode the whole file.")
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error:
        raise ValueError("The picture is not base64; encode the whole file.") from None
