"""What users write in tables: where a line ends, which cells are empty, and which file a name means."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from careedit.errors import InputError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)


def lines_of(text: str) -> list[str]:
    """The lines of a text, which end at LF or CRLF and nowhere else.

    `str.splitlines` also cuts at U+2028, NEL, VT, FF and others, which may stand inside an instruction.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, blank text, no bytes, NaN (also pandas' NA and NaT), or a mapping of such."""
    if value is None:
        return True
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, bytes | bytearray):
        return not value
    if isinstance(value, Mapping):
        return all(map(is_missing, value.values()))
    if type(value).__name__ == "NAType":  # compares as unknown, even with itself
        return True
    try:
        return bool(value != value)  # noqa: PLR0124 - NaN and NaT differ from themselves
    except (TypeError, ValueError):
        return False


def words_of(value: Any, *, numbers: bool = True) -> str:
    """A cell as text without the space around it, "" where it is empty.

    A number is its shortest form, so that 3 and 3.0 are one id: pandas writes whole numbers as floats where a column has
    empty cells. Raises `InputError` for other values: true or false, infinity, a list, bytes, half of a surrogate pair (JSON
    can write one as "\\ud800", and no file can store it), and a number unless `numbers`.
    """
    if is_missing(value):
        return ""
    if isinstance(value, str):
        if not _is_unicode(value):
            raise InputError(f"text with half of a surrogate pair ({value[:40]!a}), which is not Unicode; correct it")
        return value.strip()
    if numbers and not isinstance(value, bool):
        if isinstance(value, Integral):
            return f"{value:d}"
        if isinstance(value, Decimal) and value.is_finite():
            return f"{int(value)}" if value == int(value) else f"{value:f}"
        if isinstance(value, Real) and math.isfinite(number := float(value)):
            return f"{int(number)}" if number.is_integer() else repr(number)
        if isinstance(value, date | time):
            return value.isoformat()
    kind = type(value).__name__
    raise InputError(f"a {kind} ({str(value)[:40]}), not text; write it in quotes")


def weights_of(text: str, what: str) -> str | dict[str, float]:
    """The name of an expert, or weights as in "erase=0.7,style=0.3"; `what` is what errors call it. Raises `InputError`."""
    if "=" not in text:
        return text
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = (piece.strip() for piece in part.partition("="))
        try:
            value = float(weight)
        except ValueError:
            raise InputError(f"{what} {text!r} is not a mixture; write it as erase=0.7,style=0.3.") from None
        if name in weights:
            raise InputError(f"{what} {text!r} names {name!r} twice; give each expert one weight.")
        weights[name] = value
    return weights


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def find_file(root: Path, name: Any, what: str) -> Path:
    """The file that a cell names, from the folder `root`; `what` is what errors call it.

    A name in another Unicode form than the file's (macOS decomposes what a user typed) finds it where exactly one file
    fits. Raises `InputError`.
    """
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"The {what} is a {type(name).__name__} ({str(name)[:40]}); give the name of a file.")
    if _ADDRESS.match(name):
        shown = f"{name[:60]}..." if len(name) > 60 else name
        raise InputError(f"The {what} {shown!r} is an address; download it and give the name of the file.")
    try:
        path = root / os.path.expanduser(name)
        if path.is_dir():
            raise InputError(f"The {what} {name!r} is a folder; give the name of a file in it.")
        if path.is_file():
            return path
        alike = [other for other in _other_forms(path) if other.is_file()]
    except (OSError, ValueError):
        raise InputError(f"The {what} {name[:60]!r} is not a file name; give the name of a file.") from None
    if not alike:
        raise InputError(f"The {what} {name!r} does not exist below {str(root)!r}; check the name and the folder.")
    if len(alike) > 1:
        raise InputError(
            f"The {what} {name!r} names {len(alike)} files below {str(root)!r}, equal but for their Unicode form; rename one."
        )
    return alike[0]


def _other_forms(path: Path) -> list[Path]:
    """Paths whose parts equal those of `path` in Unicode's composed form."""
    found = [Path(path.anchor or ".")]
    for part in path.relative_to(path.anchor).parts:
        found = [child for folder in found for child in _alike(folder, part)]
    return found


def _alike(folder: Path, part: str) -> list[Path]:
    if (folder / part).exists():
        return [folder / part]
    wanted = unicodedata.normalize("NFC", part)
    if not folder.is_dir():
        return []
    return [folder / name for name in sorted(os.listdir(folder)) if unicodedata.normalize("NFC", name) == wanted]
