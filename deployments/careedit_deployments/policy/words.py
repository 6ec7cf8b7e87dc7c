"""A words list: refuses or marks instructions that contain one of its words or phrases.

Words are compared after Unicode normalisation (NFKC) and case folding, without characters that are not visible and without
accents put on top of a letter, so that "ＢＡＤ", "b\u200bad" and "b\u0336ad" are "bad". A word matches whole words only:
"ass" is not in "glass". A `*` at the start or the end lets it match a part of a word; languages that are written without
spaces need it. Letters of another script that look alike, and spelled-out letters ("b a d"), are not recognised.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Literal

from careedit.errors import InputError
from careedit.tabular import lines_of
from careedit_deployments.policy.contract import ALLOW, Check, PolicyInput, Verdict

_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Invisible characters that Unicode does not count as format characters."""

_MARKS = ((0x0300, 0x036F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF))
"""Marks on top of letters that remain after composition. Scripts that need marks to be read have theirs elsewhere."""


def normalised(text: str) -> str:
    """The words of a text in the form that is compared, each between single spaces, with a space at either end."""
    text = "".join(character for character in text if not _is_invisible(character))
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = "".join(character for character in text if not _is_invisible(character) and not _is_loose_mark(character))
    kept = "".join(character if unicodedata.category(character)[0] in "LMN" else " " for character in text)
    return f" {' '.join(kept.split())} "


def words_list(file: str, verdict: Literal["refuse", "mark"] = "refuse") -> Check:
    """A check from a UTF-8 file with a word or phrase per line; lines that start with # are comments.

    Raises `InputError` if the file cannot be read, or has no words.
    """
    try:
        lines = lines_of(Path(file).read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The words list {file!r} cannot be read ({type(error).__name__}); give a UTF-8 text file."
        ) from None
    if verdict not in ("refuse", "mark"):
        raise InputError(f"The verdict of a words list is refuse or mark, not {verdict!r}; correct options.verdict.")
    entries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    patterns = [_pattern(entry, file) for entry in entries]
    if not patterns:
        raise InputError(f"The words list {file!r} has no words; write one per line.")
    answer = Verdict(
        verdict=verdict, reason="The prompt has a word that this server's policy does not allow; change the prompt."
    )

    def check(about: PolicyInput) -> Verdict:
        text = normalised(about.instruction)
        return answer if any(pattern in text for pattern in patterns) else ALLOW

    return check


def _pattern(entry: str, file: str) -> str:
    words = normalised(entry.strip("*")).strip()
    if not words:
        raise InputError(f"The words list {file!r} has the line {entry[:40]!r}, which is not a word; remove it.")
    return f"{'' if entry.startswith('*') else ' '}{words}{'' if entry.endswith('*') else ' '}"


def _is_invisible(character: str) -> bool:
    is_selector = 0xFE00 <= ord(character) <= 0xFE0F or 0xE0100 <= ord(character) <= 0xE01EF
    return is_selector or character in _FILLERS or unicodedata.category(character) == "Cf"


def _is_loose_mark(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _MARKS)
