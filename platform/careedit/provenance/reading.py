"""The chain of a picture's Content Credentials: the picture itself, what it was made from, and so on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from careedit.provenance.credit import Credit
from careedit.provenance.native import open_reader
from careedit.provenance.signing import CREDIT
from careedit.provenance.xmp import DIGITAL_SOURCE_TYPE
from careedit.record import Record

MAX_LINKS = 1000
"""Maximum number of manifests of a chain that are read."""


class Link(Record):
    """One manifest of a chain."""

    signer: str
    """Common name of the certificate that signed, or its organisation."""
    generator: str
    """Program that wrote the manifest, as it calls itself."""
    when: str | None = None
    """Time of the action as the signer states it, in UTC; None: it is not stated."""
    digital_source_type: str | None = None
    """IPTC's term for how the picture was made; None: it is not stated."""
    credit: Credit | None = None
    """What careedit says about its edit; None: another program wrote the manifest."""


class FoundWatermark(Record):
    """An invisible watermark in the pixels."""

    method: str
    """Name of the method that found it."""
    payload: str
    """The payload, in hexadecimal digits."""
    confidence: float
    """Probability that the payload is read without an error, 0 to 1, as the method estimates it."""
    edit: str | None = None
    """Id of the edit that has this payload; None: none of the given ids has it, or none was given."""


class Provenance(Record):
    """What a file says about where its picture comes from."""

    version: int = 1
    """Version of this format; always 1."""
    state: str
    """"trusted", "valid" (the signer is not of a trusted authority), "invalid", or "none" without Content Credentials."""
    problems: tuple[str, ...] = ()
    """Reasons for "invalid" in the words of the C2PA library, for example a hash that differs; empty otherwise."""
    marked: bool
    """Whether the file has IPTC's mark of a trained model in clear text, as XMP or in a manifest. It proves nothing."""
    chain: tuple[Link, ...] = ()
    """The manifests: the picture's own first, then its source's, and so on."""
    watermark: FoundWatermark | None = None
    """The watermark in the pixels, which is not signed; None: none was found, or it was not looked for."""


def read_provenance(data: bytes, *, trust: str | None = None) -> Provenance:
    """Read and check the Content Credentials of a file, offline. `trust` are certificates of authorities, as PEM.

    Raises `ImageError` for a file that is not a picture and for Content Credentials that cannot be read.
    """
    marked = DIGITAL_SOURCE_TYPE.encode() in data
    reader = open_reader(data, trust)
    if reader is None:
        return Provenance(state="none", marked=marked)
    with reader:
        store = json.loads(reader.json())
        state = (reader.get_validation_state() or "Invalid").lower()
    failures = (store.get("validation_results") or {}).get("activeManifest", {}).get("failure", [])
    problems = [str(one.get("explanation") or one["code"]) for one in failures] if state == "invalid" else []
    chain: list[Link] = []
    label, manifests, seen = store.get("active_manifest"), store.get("manifests") or {}, set[str]()
    while label in manifests and label not in seen and len(chain) < MAX_LINKS:
        seen.add(label)
        chain.append(_link(manifests[label]))
        parents = [one for one in manifests[label].get("ingredients") or [] if one.get("relationship") == "parentOf"]
        label = parents[0].get("active_manifest") if parents else None
    return Provenance(state=state, problems=tuple(problems), marked=marked, chain=tuple(chain))


def _link(manifest: Mapping[str, Any]) -> Link:
    signature = manifest.get("signature_info") or {}
    generators = manifest.get("claim_generator_info") or [{}]
    given = {one.get("label"): one.get("data") for one in manifest.get("assertions") or []}
    actions = [
        action
        for label, data in given.items()
        if str(label).startswith("c2pa.actions") and isinstance(data, Mapping)
        for action in data.get("actions") or []
    ]
    stated = [one for one in actions if one.get("digitalSourceType")] or actions[-1:] or [{}]
    return Link(
        signer=str(signature.get("common_name") or signature.get("issuer") or "unknown"),
        generator=" ".join(str(generators[0][key]) for key in ("name", "version") if generators[0].get(key)),
        when=stated[0].get("when") or signature.get("time"),
        digital_source_type=stated[0].get("digitalSourceType"),
        credit=_credit(given.get(CREDIT)),
    )


def _credit(data: object) -> Credit | None:
    """The credit of an assertion; None for one that is not careedit's or of a later format."""
    try:
        return Credit.model_validate(data)
    except ValueError:
        return None
