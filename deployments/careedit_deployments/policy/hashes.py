"""A hash list: refuses or marks pictures that are known, as files, as pixels or by their look.

A line is `sha256:HEX` (a file as it was sent, or `careedit.images.image_sha256` of a picture), or `dhash:HEX`, a difference
hash of 64 bits as the library ImageHash computes it (`imagehash.dhash(picture)`). Difference hashes survive scaling, new
compression and small changes of colour, not cropping, mirroring or turning; use a classifier for those.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from careedit.errors import InputError
from careedit.images import image_sha256
from careedit.tabular import lines_of
from careedit_deployments.policy.contract import ALLOW, Check, PolicyInput, Verdict

SIDE = 8
"""Rows of a difference hash, and bits per row."""

_LINE = re.compile(r"(?:sha256:(?P<sha256>[0-9a-f]{64})|dhash:(?P<dhash>[0-9a-f]{16}))")


def difference_hash(picture: Image.Image) -> int:
    """64 bits: whether each pixel of the 9x8 grey picture is darker than its right neighbour. A flat picture gives 0."""
    small = picture.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(small)
    return int("".join("01"[bit] for bit in (pixels[:, 1:] > pixels[:, :-1]).flatten().astype(int)), 2)


def hash_list(file: str, distance: int = 4, verdict: Literal["refuse", "mark"] = "refuse") -> Check:
    """A check from a text file with a hash per line; lines that start with # are comments.

    `distance` is the number of bits, 0 to 16, by which a difference hash may differ. Raises `InputError` if the file cannot
    be read, or has a line that is not a hash.
    """
    try:
        lines = lines_of(Path(file).read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The hash list {file!r} cannot be read ({type(error).__name__}); give a text file.") from None
    if not 0 <= distance <= 16:
        raise InputError(f"The distance of a hash list is 0 to 16 bits, not {distance!r}; correct options.distance.")
    if verdict not in ("refuse", "mark"):
        raise InputError(f"The verdict of a hash list is refuse or mark, not {verdict!r}; correct options.verdict.")
    files, looks = set(), []
    for number, line in enumerate(lines, 1):
        entry = line.strip().lower()
        if not entry or entry.startswith("#"):
            continue
        found = _LINE.fullmatch(entry)
        if found is None:
            raise InputError(f"Line {number} of the hash list {file!r} is not a hash; write sha256:HEX or dhash:HEX.")
        if found["sha256"]:
            files.add(found["sha256"])
        elif int(found["dhash"], 16) == 0:
            raise InputError(
                f"Line {number} of the hash list {file!r} is the hash of every flat picture; use sha256 for this one."
            )
        else:
            looks.append(int(found["dhash"], 16))
    if not files and not looks:
        raise InputError(f"The hash list {file!r} has no hashes; write one per line.")
    answer = Verdict(
        verdict=verdict, reason="A picture is on this server's list of pictures that it does not allow; use another."
    )

    def is_known(picture: Image.Image, file_sha256: str | None) -> bool:
        if files and (file_sha256 in files or image_sha256(picture) in files):
            return True
        look = difference_hash(picture) if looks else 0
        return any((look ^ known).bit_count() <= distance for known in looks)

    def check(about: PolicyInput) -> Verdict:
        pictures = [one for one in about.pictures if one.role != "mask"]
        return answer if any(is_known(one.picture, one.file_sha256) for one in pictures) else ALLOW

    return check
