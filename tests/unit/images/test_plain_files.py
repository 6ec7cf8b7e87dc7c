"""A file without metadata: the same pixels, and nothing about the place, the time or the device."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image, ImageCms, PngImagePlugin

from careedit.images import decode_image, decode_mask, without_metadata
from pictures import encoded

SECRET = "52.5163N 13.3777E"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
XMP = f'<x:xmpmeta><rdf:Description tiff:Orientation="6" note="{SECRET}"/></x:xmpmeta>'.encode()


def picture(mode: str = "RGB") -> Image.Image:
    gradient = Image.linear_gradient("L").resize((48, 32))
    return Image.merge("RGB", (gradient, gradient.rotate(180), Image.radial_gradient("L").resize((48, 32)))).convert(
        mode
    )


def exif(turn: int) -> bytes:
    made = Image.Exif()
    made[0x0112], made[0x010E] = turn, SECRET
    made.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 58.7), 29: SECRET})
    thumbnail = encoded(Image.new("RGB", (16, 16), (1, 2, 3)), "JPEG")
    return made.tobytes() + thumbnail


def texts() -> PngImagePlugin.PngInfo:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", SECRET)
    notes.add_text("Author", SECRET, zip=True)
    return notes


def with_xmp(name: str) -> dict[str, Any]:
    if name != "PNG":
        return {"xmp": XMP}
    notes = texts()
    notes.add_itxt("XML:com.adobe.xmp", XMP.decode())
    return {"pnginfo": notes}


CASES = {
    **{
        f"{name} {said}": encoded(picture(mode), name, **options, **more)
        for name, mode, more in (
            ("JPEG", "RGB", {"comment": SECRET.encode(), "dpi": (72, 72)}),
            ("JPEG", "CMYK", {}),
            ("JPEG", "L", {"progressive": True}),
            ("PNG", "P", {}),
            ("PNG", "RGBA", {}),
            ("WebP", "RGBA", {"lossless": True}),
            ("WebP", "RGB", {"quality": 40}),
        )
        for said, options in (
            (f"{mode} turned", {"exif": exif(6)}),
            (f"{mode} upright", {"exif": exif(1)}),
            (f"{mode} xmp", with_xmp(name)),
            (f"{mode} profile", {"icc_profile": PROFILE, "exif": exif(3)}),
            (f"{mode} bare", {}),
        )
    },
    "PNG notes": encoded(picture(), pnginfo=texts()),
    "JPEG without an end": encoded(picture(), "JPEG", exif=exif(8))[:-2],
    "JPEG of two pictures": encoded(picture(), "JPEG", exif=exif(2)) + encoded(picture("L"), "JPEG", exif=exif(1)),
}


@pytest.mark.parametrize("data", CASES.values(), ids=CASES.keys())
def test_a_file_without_metadata_is_the_same_picture_and_says_nothing_else(data: bytes) -> None:
    plain = without_metadata(data)
    assert plain is not None
    before, after = decode_image(data), decode_image(plain)
    assert (after.tobytes(), after.size, after.info) == (before.tobytes(), before.size, before.info)
    assert len(plain) <= len(data) + 64
    opened = Image.open(io.BytesIO(plain + b"\xff\xd9"))  # Pillow itself needs an end marker
    opened.load()
    assert set(opened.getexif()) <= {0x0112}
    assert not opened.getexif().get_ifd(0x8825)
    kept = {key: value for key, value in opened.info.items() if key not in ("exif", "icc_profile")}
    assert SECRET not in repr(kept)
    assert SECRET.encode() not in plain
    assert bool(opened.info.get("icc_profile")) == (
        PROFILE in data or "icc_profile" in Image.open(io.BytesIO(data)).info
    )
    assert without_metadata(plain) == plain


def test_a_mask_without_metadata_is_the_same_mask() -> None:
    mask = Image.new("RGBA", (20, 10), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (2, 3, 9, 8))
    data = encoded(mask, exif=exif(6), pnginfo=texts())
    plain = without_metadata(data)
    assert decode_mask(plain, white_is_edit=False) == decode_mask(data, white_is_edit=False)


def test_files_whose_metadata_is_not_understood_have_no_plain_form() -> None:
    assert without_metadata(encoded(picture(), "AVIF", exif=exif(1))) is None
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    assert without_metadata(encoded(picture(), pnginfo=notes)) is None
