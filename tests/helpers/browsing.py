"""What tests of the pages in a real browser share."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

CHROMIUM = Path("/usr/bin/chromium")

REBOUND = "--host-resolver-rules=MAP rebound.example 127.0.0.1"
"""A name that its owner has pointed at this machine."""

ARMS = {
    "tiny": {"expert_set": "tiny", "weight": 3},
    "other": {"expert_set": "tiny"},
    "mirror": {"expert_set": "tiny", "shadow": True},
}


def picture_of(url: str) -> Image.Image:
    """The image of a data URL."""
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")


def results(page) -> list[Image.Image]:
    """The results that the studio shows, once they are finished."""
    page.locator("#results .go-on").last.wait_for()
    return [picture_of(image.get_attribute("src")) for image in page.locator("#results .stage img:not(.over)").all()]
