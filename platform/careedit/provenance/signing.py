"""Signing the file of a result: a C2PA manifest with what made it, and with its source's manifest where that is kept.

Only the file gets longer; its pixels stay as they are. Nothing is fetched and no time-stamp service is asked.
Source: C2PA specification 2.2; https://opensource.contentauthenticity.org/docs/c2pa-python
"""

from __future__ import annotations

import io
from importlib import metadata
from typing import Any

import c2pa
from PIL import Image

from careedit.errors import ImageError, InputError
from careedit.files import png_bytes
from careedit.provenance.certificates import Identity, time_now
from careedit.provenance.credit import Credit
from careedit.provenance.native import context, mime_of, open_reader, store_bytes, unreadable
from careedit.provenance.xmp import DIGITAL_SOURCE_TYPE

CREDIT = "org.careedit.edit"
"""Label of the assertion with the `Credit`."""
WATERMARKED = "c2pa.watermarked.unbound"
"""C2PA's action for an invisible watermark that says nothing about the manifest."""
MAX_SOURCE = 2**20
"""Maximum size of the Content Credentials that a result takes over from its source, in bytes. One edit adds 6 KB."""

_SOURCE = "source"


class Signing:
    """Signs results with one identity. Threads may share it."""

    def __init__(self, identity: Identity) -> None:
        """Raises `InputError` for an identity with which a signature would not be valid."""
        self.identity = identity
        """The certificate chain and the key."""
        self._generator = [{"name": "careedit", "version": metadata.version("careedit")}]
        try:
            trial = self.sign(png_bytes(Image.new("RGB", (8, 8))), _TRIAL)
        except c2pa.C2paError as error:
            raise _unfit(identity, str(error)) from None
        reader = open_reader(trial)
        assert reader is not None
        failures = ((reader.get_validation_results() or {}).get("activeManifest") or {}).get("failure") or []
        if reader.get_validation_state() == "Invalid":
            raise _unfit(identity, ", ".join(one.get("explanation") or one["code"] for one in failures))

    def sign(self, data: bytes, credit: Credit, ingredient: bytes | None = None, *, watermarked: bool = False) -> bytes:
        """The file `data` (PNG, JPEG or WebP) with signed Content Credentials; takes about 5 ms per million pixels.

        `ingredient`, from `ingredient_of`, is the source with its own manifest. `watermarked` is stated as an action. Raises `InputError` if the certificate has
        expired since the start.
        """
        self.identity.check_time()
        made = {"digitalSourceType": DIGITAL_SOURCE_TYPE, "when": f"{time_now():%Y-%m-%dT%H:%M:%SZ}"}
        actions: list[dict[str, Any]] = [{"action": "c2pa.created", **made}]
        if ingredient is not None:
            opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": [_SOURCE]}}
            actions = [opened, {"action": "c2pa.edited", **made}]
        if watermarked:
            actions.append({"action": WATERMARKED})
        manifest = {
            "claim_generator_info": self._generator,
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": actions}},
                {"label": CREDIT, "data": credit.model_dump(mode="json")},
            ],
        }
        signed = io.BytesIO()
        identity = self.identity
        info = c2pa.C2paSignerInfo(identity.algorithm, identity.chain, identity.key, None)
        # c2pa's objects are used up by a signature, or are for one thread: all are made for each picture, in 0.1 ms.
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest, context()) as builder:
            if ingredient is not None:
                builder.add_ingredient_from_archive(io.BytesIO(ingredient))
            builder.sign(signer, mime_of(data), io.BytesIO(data), signed)
        return signed.getvalue()


def ingredient_of(data: bytes) -> bytes:
    """The source `data` as an ingredient of its results: its hash, its manifest if it has one, and whether that was valid.

    Raises `ImageError` for Content Credentials that cannot be read or are larger than `MAX_SOURCE`.
    """
    _check_size(store_bytes(data))  # before c2pa reads them, which takes 5 s and 500 MB for 50 MB
    kept = io.BytesIO()
    try:
        with c2pa.Builder({"claim_generator_info": [{"name": "careedit"}]}, context()) as builder:
            parent = {"title": _SOURCE, "label": _SOURCE, "relationship": "parentOf"}
            builder.add_ingredient(parent, mime_of(data), io.BytesIO(data))
            builder.write_ingredient_archive(_SOURCE, kept)
    except c2pa.C2paError as error:
        raise unreadable(error) from None
    _check_size(len(kept.getvalue()))
    return kept.getvalue()


def _check_size(size: int) -> None:
    if size > MAX_SOURCE:
        raise ImageError(
            f"The Content Credentials of the image have {size:,} bytes; the limit is {MAX_SOURCE:,}, so save it without them."
        )


_TRIAL = Credit(edit="trial", model="trial", expert_set="trial", expert_set_sha256="0" * 64, experts={"base": 1.0})


def _unfit(identity: Identity, reason: str) -> InputError:
    return InputError(
        f"The certificate {identity.name!r} cannot sign Content Credentials ({reason[:200].rstrip('.')}); give one for signing "
        "documents or e-mail, which another certificate signed."
    )
