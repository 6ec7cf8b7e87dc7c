"""c2pa's library, set up once: offline, and without thumbnails, which would add 50 KB and 50 ms to a picture."""

from __future__ import annotations

import io
from typing import Any

import c2pa

from careedit.errors import ImageError

MIMES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "heif": "image/heif", "avif": "image/avif"}
"""Media types of the formats that careedit reads, by a short name."""


_STORES = (b"caBX", b"\xff\xeb", b"C2PA", b"uuid")
"""Names of the parts of a PNG, JPEG, WebP, and HEIC or AVIF file that may hold Content Credentials."""


def context(trust: str | None = None) -> c2pa.Context:
    """Settings of one call. `trust` are the certificates of authorities, as PEM; None: no signer counts as trusted.

    Nothing is fetched: a manifest may name an address, which would let a stranger's picture reach into the network.
    """
    settings: dict[str, Any] = {
        "builder": {"thumbnail": {"enabled": False}},
        "verify": {
            "verify_after_sign": False,
            "verify_trust": True,
            "remote_manifest_fetch": False,
            "ocsp_fetch": False,
        },
    }
    if trust is not None:
        settings["trust"] = {"trust_anchors": trust}
    return c2pa.Context.from_dict(settings)


def mime_of(data: bytes) -> str:
    """The media type of a picture's file, from its first bytes. Raises `ImageError`."""
    head = data[:16]
    if head.startswith(b"\x89PNG"):
        return MIMES["png"]
    if head.startswith(b"\xff\xd8"):
        return MIMES["jpeg"]
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return MIMES["webp"]
    if head[4:8] == b"ftyp":
        return MIMES["avif" if head[8:12] in (b"avif", b"avis") else "heif"]
    raise ImageError("The file is not a PNG, JPEG, WebP, HEIC or AVIF picture; give one of those.")


def store_bytes(data: bytes) -> int:
    """Number of bytes that a file gives to Content Credentials, from the lengths in its structure alone.

    A damaged file may give too small a number; c2pa's library then refuses it.
    """
    mime, end = mime_of(data), len(data)
    total, at = 0, {MIMES["png"]: 8, MIMES["jpeg"]: 2, MIMES["webp"]: 12}.get(mime, 0)
    while at + 8 <= end:
        if mime == MIMES["png"]:
            size, name = 12 + int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        elif mime == MIMES["jpeg"]:
            size, name = 2 + int.from_bytes(data[at + 2 : at + 4], "big"), data[at : at + 2]
        elif mime == MIMES["webp"]:
            length, name = int.from_bytes(data[at + 4 : at + 8], "little"), data[at : at + 4]
            size = 8 + length + length % 2
        else:
            length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            size = {0: end - at, 1: int.from_bytes(data[at + 8 : at + 16], "big")}.get(length, max(length, 8))
        if name == b"\xff\xda":  # the pixels of a JPEG file
            break
        total += size if name in _STORES else 0
        at += max(size, 2)
    return total


def open_reader(data: bytes, trust: str | None = None) -> c2pa.Reader | None:
    """A reader of the Content Credentials in a file; None if it has none. Raises `ImageError` if they cannot be read."""
    mime = mime_of(data)
    try:
        return c2pa.Reader(mime, io.BytesIO(data), context=context(trust))
    except c2pa.C2paError.ManifestNotFound:
        return None
    except c2pa.C2paError as error:
        raise unreadable(error) from None


def unreadable(error: c2pa.C2paError) -> ImageError:
    """The error about Content Credentials that the library cannot read."""
    return ImageError(
        f"The Content Credentials of the image cannot be read ({str(error)[:120].rstrip('.')}); save the image without them."
    )
