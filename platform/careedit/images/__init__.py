"""Pictures: decoding within limits, masks, panel canvases, and putting an edit back into its source."""

from __future__ import annotations

from careedit.images.decode import decode_image, decode_mask, image_sha256
from careedit.images.limits import DEFAULT_LIMITS, Limits
from careedit.images.save import save_image

__all__ = [
    "DEFAULT_LIMITS",
    "Limits",
    "decode_image",
    "decode_mask",
    "image_sha256",
    "save_image",
]
