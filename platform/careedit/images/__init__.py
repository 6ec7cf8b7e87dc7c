"""Pictures: decoding within limits, masks, panel canvases, and putting an edit back into its source."""

from __future__ import annotations

from careedit.images.canvas import MAX_REFERENCES, canvas_mask, compose_canvas, crop_target
from careedit.images.decode import decode_image, decode_mask, image_sha256, inspect_picture
from careedit.images.fit import Fit, fit_panel
from careedit.images.limits import DEFAULT_LIMITS, Limits
from careedit.images.marks import decoding_notes, marks_of, other_size, turn_note
from careedit.images.masks import composite, default_feather, feather, grow, mask_share
from careedit.images.refine import boundary_error, refine_mask
from careedit.images.save import save_image

__all__ = [
    "DEFAULT_LIMITS",
    "MAX_REFERENCES",
    "Fit",
    "Limits",
    "boundary_error",
    "canvas_mask",
    "compose_canvas",
    "composite",
    "crop_target",
    "decode_image",
    "decode_mask",
    "decoding_notes",
    "default_feather",
    "feather",
    "fit_panel",
    "grow",
    "image_sha256",
    "inspect_picture",
    "marks_of",
    "mask_share",
    "other_size",
    "refine_mask",
    "save_image",
    "turn_note",
]
