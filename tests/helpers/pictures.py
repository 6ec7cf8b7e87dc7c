"""Pictures as the bytes of a file."""

import io
from typing import Any

from PIL import Image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The file of an image in one of Pillow's formats, with that format's `options`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_scans(size: int, scans: int) -> bytes:
    """A progressive JPEG file of a flat picture whose last scan, which refines nothing, comes `scans` times."""
    data = encoded(Image.new("RGB", (size, size), (200, 10, 30)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * (scans - data.count(b"\xff\xda")) + data[-2:]
