"""Licences of an expert set: what is known of its base and experts, and whether they may be used commercially.

A set's file states the licence in `base.licence` and `base.commercial`; a statement there counts most, for a licence that you
bought for example. Else a base of the hub is looked up by its id, and a local base is asked for the `license` in the front
matter of its README.md (Hugging Face's model card), or of the set's, if the base lies in it. This is not legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from careedit.errors import CareEditError, ExpertError
from careedit.experts.set import ExpertSet
from careedit.families import FLUX2_KLEIN_KV, FLUX_FILL
from careedit.files import parse_yaml

_COMMERCIAL = frozenset(
    {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "cc-by-4.0", "unlicense"}
)
"""SPDX identifiers, in lower case, of licences that allow commercial use without further terms on it."""

_FORBIDDING = re.compile(r"non-?\s?commercial|\bcc-by-nc|\bresearch[- ]only", re.IGNORECASE)
_FLUX1, _FLUX2, _APACHE = FLUX_FILL.licence, FLUX2_KLEIN_KV.licence, "Apache-2.0"

KNOWN: Mapping[str, str] = {
    **{
        f"black-forest-labs/{name}": _FLUX1
        for name in ("flux.1-dev", "flux.1-fill-dev", "flux.1-kontext-dev", "flux.1-canny-dev", "flux.1-depth-dev")
    },
    **{
        f"black-forest-labs/{name}": _FLUX2
        for name in ("flux.2-dev", "flux.2-klein-9b", "flux.2-klein-base-9b", "flux.2-klein-9b-kv")
    },
    **{f"black-forest-labs/{name}": _APACHE for name in ("flux.1-schnell", "flux.2-klein-4b", "flux.2-klein-base-4b")},
    **{f"qwen/{name}": _APACHE for name in ("qwen-image-edit", "qwen-image-edit-2509", "qwen-image-edit-2511")},
    "meituan-longcat/longcat-image-edit": _APACHE,
}
"""Licences of bases by hub id, in lower case."""


@dataclass(frozen=True)
class BaseLicence:
    """What is known of the licence of a set's base."""

    base: str
    """The base, as the set's file names it."""
    licence: str | None
    """The licence; None: it is not known."""
    commercial: bool | None
    """Whether the licence allows commercial use; None: it is not known."""


def base_licence(expert_set: ExpertSet) -> BaseLicence:
    """The licence of a set's base. Nothing is fetched from the hub."""
    base = expert_set.spec.base
    licence = base.licence
    if licence is None:
        licence = KNOWN.get(base.path.lower()) if base.is_hub_id else _of_cards(expert_set)
    commercial = base.commercial if base.commercial is not None else is_commercial(licence)
    return BaseLicence(base.path, licence, commercial)


def is_commercial(licence: str | None) -> bool | None:
    """Whether a licence allows commercial use, by its name; None: it is not known."""
    if licence is None:
        return None
    if _FORBIDDING.search(licence):
        return False
    return True if licence.strip().lower() in _COMMERCIAL else None


def check_commercial(expert_set: ExpertSet) -> None:
    """Raise `ExpertError` if the base or an expert of a set may not be used commercially, or if that is not known of the base."""
    found = base_licence(expert_set)
    what = f"The base {found.base!r} of the set {expert_set.name!r}"
    if found.commercial is False:
        raise ExpertError(
            f"{what} may not be used commercially ({found.licence}); serve another base, buy a licence and state it in "
            "base.licence and base.commercial of the set's file, or leave out `commercial: true`."
        )
    if found.commercial is None:
        known = (
            f"has the licence {found.licence!r}, which careedit does not know" if found.licence else "states no licence"
        )
        raise ExpertError(
            f"{what} {known}; read the licence, then state base.licence and base.commercial in the set's file."
        )
    for manifest in expert_set.manifests.values():
        if is_commercial(manifest.licence) is False:
            raise ExpertError(
                f"The expert {manifest.name!r} of the set {expert_set.name!r} may not be used commercially "
                f"({manifest.licence}); remove it from the set, or leave out `commercial: true`."
            )


def _of_cards(expert_set: ExpertSet) -> str | None:
    """The licence in the README.md of a local base, or else of its set, if the base is in the set's folder."""
    base, folder = Path(expert_set.spec.base.path), expert_set.folder
    if base.is_absolute():
        return _of_card(base / "README.md")
    if "://" in str(base) or folder.local is None:
        return None
    place = folder.local / base
    inside = place.resolve().is_relative_to(folder.local.resolve())
    return _of_card(place / "README.md") or (_of_card(folder.local / "README.md") if inside else None)


def _of_card(path: Path) -> str | None:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    try:
        matter: Any = parse_yaml(found[1], str(path)) if found else None
    except CareEditError:
        return None
    if not isinstance(matter, dict):
        return None
    name = matter.get("license_name") if matter.get("license") == "other" else matter.get("license")
    return name if isinstance(name, str) and name else None
