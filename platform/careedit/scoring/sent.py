"""What is sent to a judge, as part of its identity: scores of other options or other endpoints are not comparable.

The identity comes from what the backend itself builds for one fixed question. No list of options is needed, so none
can be forgotten.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from functools import cache
from typing import Any

from PIL import Image

from careedit.files import json_digest
from careedit.scoring.scorer import Question

LEAD, TEXT = "An edit was asked for.", "Was it done?"


def settings_of(judge: object) -> Mapping[str, str]:
    """What decides a judge's answers in addition to model, revision and wording; a user's own judge may have no settings."""
    settings: Mapping[str, str] = getattr(judge, "settings", {})
    return settings


@cache
def probe_picture(width: int = 1280, height: int = 960) -> Image.Image:
    """The picture of the fixed question, RGB: large, so that it shows whether pictures are scaled down."""
    grey = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (grey, grey.rotate(180), grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))


def probe_question(width: int = 1280, height: int = 960) -> Question:
    """The fixed question, about two pictures."""
    picture = probe_picture(width, height)
    return Question(lead=LEAD, images=(picture, picture), text=TEXT)


def digest_of_request(body: Any) -> str:
    """sha256 of a request's document; pictures count by format, size and pixels, whatever library encoded them."""
    return json_digest(_plain(body), allow_nan=True, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str) and value.startswith("data:"):
        kind, _, data = value.partition(",")
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            pixels = hashlib.sha256(picture.tobytes()).hexdigest()
            return [kind, picture.format, picture.mode, *picture.size, pixels]
    return value
