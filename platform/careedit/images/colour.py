"""From any Pillow mode to what the editor sees: 8-bit sRGB without alpha, upright, without metadata.

What this changes and a user should know is marked in `Image.info`, until an edit reports it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageCms

from careedit.errors import ImageError
from careedit.images.headers import orientation

FLATTENED = "transparent pixels were composited over white"
"""The end of the note about a picture that had transparent pixels."""

_FLATTENED = "careedit.flattened"
_STORED = "careedit.stored_size"
MARKS = frozenset({_FLATTENED, _STORED})
"""The keys of `Image.info` that decoding sets; a decoded picture has no other keys."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def to_rgb(image: Image.Image, name: str, stored: tuple[int, int]) -> Image.Image:
    """`image`, of any mode, as upright 8-bit sRGB: ICC profile applied, white behind transparency, no metadata.

    `stored` is its size in its file. A turn and a composited transparency are marked.
    """
    colours, alpha = split_alpha(image, name)
    rgb = _apply_profile(colours, image.info.get("icc_profile"))
    flattened = alpha is not None and is_transparent(alpha)
    if alpha is not None and flattened:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    return mark(upright(rgb, image), image, stored, flattened=flattened)


def is_transparent(alpha: Image.Image) -> bool:
    """Whether a pixel of an "L" alpha channel is not fully opaque."""
    return bool(alpha.getextrema()[0] < 255)  # type: ignore[operator]


def upright(pixels: Image.Image, source: Image.Image) -> Image.Image:
    """`pixels` turned as the EXIF or XMP orientation of `source` says, in a new picture without metadata."""
    turn = _TURNS.get(orientation(source.info.get("exif"), source.info.get("xmp")))
    turned = pixels.copy() if turn is None else pixels.transpose(turn)
    turned.info = {}
    return turned


def split_alpha(image: Image.Image, name: str) -> tuple[Image.Image, Image.Image | None]:
    """Colours ("L", "RGB" or "CMYK", 8 bits, not yet colour managed) and alpha ("L"; None where the mode has none)."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _split_16_bit(image)
    if image.mode == "F":
        raise ImageError(f"{name} has floating-point pixels (mode F); scale it to 8 bits per channel first.")
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = _with_small_key(image).convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _split_16_bit(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    # Pillow clips 16-bit grey at 255 instead of scaling it, so this is done by hand; 65535 / 257 = 255.
    values = np.asarray(image).astype(np.int64)
    grey = Image.fromarray(((np.clip(values, 0, 65535) + 128) // 257).astype(np.uint8))
    key = image.info.get("transparency")
    alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)) if isinstance(key, int) else None
    return grey, alpha


def _with_small_key(image: Image.Image) -> Image.Image:
    # Pillow keeps the high bytes of a 16-bit RGB file but the transparent colour in 16 bits.
    key = image.info.get("transparency")
    if image.mode != "RGB" or not isinstance(key, tuple) or max(key) < 256:
        return image
    image = image.copy()
    image.info["transparency"] = tuple(part >> 8 for part in key)
    return image


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """`image` in sRGB; a profile that is damaged or for another colour space is ignored, as browsers do."""
    converted = None
    if profile:
        try:
            converted = _through_profile(image, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = None
    return image.convert("RGB") if converted is None else converted


def _through_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = _SPACES.get(source.profile.xcolor_space.strip())
    if mode is None or (mode != image.mode and (mode, image.mode) != ("RGB", "L")):
        return None
    transform = ImageCms.buildTransform(
        source,
        _SRGB,
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    if mode == "RGB" and _is_identity(transform):
        return None
    return ImageCms.applyTransform(image.convert(mode), transform)


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    # Most profiles in the wild are sRGB itself; going through the colour engine would only add rounding noise.
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    probe = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(27, 27, 3)
    seen = np.asarray(ImageCms.applyTransform(Image.fromarray(probe), transform))
    return bool(np.abs(seen.astype(int) - probe).max() <= 2)


def mark(image: Image.Image, source: Image.Image, stored: tuple[int, int], *, flattened: bool = False) -> Image.Image:
    """`image`, marked in place, with the marks that `source` already has.

    `stored` is the size in the file; `flattened` is whether transparency was composited over white. Marks are text, so that
    a PNG file can keep them.
    """
    image.info = dict(marks_of(source))
    if stored != image.size:
        image.info[_STORED] = _size(stored)
    if flattened:
        image.info[_FLATTENED] = "yes"
    return image


def marks_of(image: Image.Image) -> dict[str | tuple[int, int], str]:
    """The marks alone, for a copy of the same picture."""
    return {key: value for key, value in image.info.items() if key in MARKS}


def decoding_notes(pictures: Sequence[Image.Image]) -> tuple[str, ...]:
    """What a source and its references lost when they were decoded, for `EditTrace.degradations`."""
    names = ("image", *("reference" for _ in pictures[1:]))
    return tuple(
        f"{name}: {FLATTENED}" for name, picture in zip(names, pictures, strict=True) if picture.info.get(_FLATTENED)
    )


def turn_note(image: Image.Image) -> str:
    """A part of a sentence about an unexpected size: that the file's orientation exchanged the sides, or ""."""
    stored = image.info.get(_STORED)
    if stored is None:
        return ""
    return f" (its file stores {stored} pixels, which its EXIF orientation turns upright)"


def other_size(mask: Image.Image, image: Image.Image, owner: str = "the image") -> str:
    """The sentence about a mask whose size differs from its picture's; `owner` is what the sentence calls the picture."""
    drawn = ", drawn on the upright picture" if turn_note(mask) or turn_note(image) else ""
    return (
        f"The mask is {_size(mask.size)}{turn_note(mask)} but {owner} is {_size(image.size)}{turn_note(image)}; "
        f"give a mask of {owner}'s size, {_size(image.size)}{drawn}."
    )


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
