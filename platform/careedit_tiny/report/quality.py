"""The page of `careedit bench quality`: table with intervals, kinds, router, goals and pictures; one file, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from careedit.files import png_data_url
from careedit.report.page import write_template

NAMES = {
    "identity": "identity (no edit)",
    "base": "base alone",
    "best_single": "best single expert",
    "unified": "unified LoRA",
    "random": "random routing",
    "rules": "rules router",
    "learned_top1": "learned router, top-1",
    "learned_top2": "learned router, top-2",
    "oracle": "oracle routing",
}
"""What a row is called on the page."""


@dataclass(frozen=True, slots=True)
class GalleryPicture:
    """One picture of a scene."""

    caption: str
    """What it is, or which row made it."""
    image: Image.Image
    """The picture."""
    right: bool | None = None
    """The oracle's verdict; None for what is no edit."""


@dataclass(frozen=True, slots=True)
class GalleryRow:
    """One scene with what several rows made of it."""

    kind: str
    """The kind of edit."""
    instruction: str
    """What was asked for."""
    pictures: Sequence[GalleryPicture]
    """Source first, truth last."""


def write_quality_page(path: Path, document: Mapping[str, Any], gallery: Sequence[GalleryRow] = ()) -> None:
    """Write the page of a report's `document`, its pictures inside, through a temporary name."""
    rows = {name: row for name, row in document["rows"].items() if row is not None}
    shown = [
        {
            "kind": row.kind,
            "instruction": row.instruction,
            "pictures": [
                (NAMES.get(one.caption, one.caption), png_data_url(one.image), one.right) for one in row.pictures
            ],
        }
        for row in gallery
    ]
    differences = {
        name.removeprefix("learned_minus_"): value
        for name, value in document.items()
        if name.startswith("learned_minus_") and value is not None
    }
    write_template(
        path,
        "quality.html.j2",
        package="careedit_tiny.report",
        title="careedit: does routing pay?",
        document=document,
        rows=rows,
        kinds=list(next(iter(rows.values()))["by_kind"]),
        names=NAMES,
        differences=differences,
        routers={name: document[name] for name in ("router", "rules_router") if document[name] is not None},
        gallery=shown,
    )
