"""Pictures: decoding within limits, masks, panel canvases, and putting an edit back into its source."""

from __future__ import annotations

from careedit.images.canvas import (
    MAX_REFERENCES,
    Fit,
    canvas_mask,
    compose_canvas,
    crop_target,
    fit_panel,
    panel_sizes,
)
from careedit.images.colour import FLATTENED, decoding_notes, marks_of, other_size, turn_note
from careedit.images.decode import decode_image, decode_mask, image_sha256, inspect_picture
from careedit.images.masks import (
    boundary_error,
    composite,
    default_feather,
    feather,
    grow,
    mask_share,
    refine_mask,
)
from careedit.images.plain import without_metadata
from careedit.images.reading import DEFAULT_LIMITS, Limits
from careedit.images.save import save_image

__all__ = [
    "DEFAULT_LIMITS",
    "FLATTENED",
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
    "panel_sizes",
    "refine_mask",
    "save_image",
    "turn_note",
    "without_metadata",
]
