"""The HTML page of `careedit eval quality`: table with intervals, kinds, routers, goals and images in one file, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from careedit.files import png_data_url
from careedit.report.page import write_template
from careedit_eval.report.tables import NAMES as ARM_NAMES
from careedit_tiny.evaluation.quality.run import QualityReport, Shown

NAMES = {name: words for name, words in ARM_NAMES.items() if name != "truth"} | {
    "random": "random routing",
    "rules": "rules router",
    "learned_top1": "learned router, top-1",
    "learned_top2": "learned router, top-2",
}
"""The names of the rows on the page."""
HIDDEN = ("identity", "best_single")
"""Rows without an image of their own: they show the source, or an expert's image."""


@dataclass(frozen=True, slots=True)
class GalleryPicture:
    """One image of a scene."""

    caption: str
    """The role of the image, such as "source", or the row that made it."""
    image: Image.Image
    """The image in its own mode."""
    right: bool | None = None
    """Whether the edit is right, by the oracle; None for an image that is not an edit."""


@dataclass(frozen=True, slots=True)
class GalleryRow:
    """One scene with the results of several rows."""

    kind: str
    """The kind of edit, such as "remove"."""
    instruction: str
    """The instruction of the edit."""
    pictures: Sequence[GalleryPicture]
    """The source first, the right result last."""


def gallery_rows(report: QualityReport) -> list[GalleryRow]:
    """One scene of each kind with the results of all rows: source, mask, reference, edits, right result."""
    return [_row(shown) for shown in report.gallery]


def _row(shown: Shown) -> GalleryRow:
    sample = shown.sample
    pictures = [GalleryPicture("source", sample.source_image())]
    for caption, image in (("mask", sample.mask_image()), ("reference", sample.reference_image())):
        if image is not None:
            pictures.append(GalleryPicture(caption, image))
    pictures += [
        GalleryPicture(name, outcome.image, outcome.compliant)
        for name, outcome in shown.outcomes.items()
        if name not in HIDDEN
    ]
    pictures.append(GalleryPicture("truth", sample.target_image()))
    return GalleryRow(sample.kind, sample.instruction, pictures)


def write_quality_page(path: Path, document: Mapping[str, Any], gallery: Sequence[GalleryRow] = ()) -> None:
    """Write the page of a report's `document` with its images inside, atomically."""
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
        "page.html.j2",
        package="careedit_tiny.evaluation.quality",
        title="careedit: does routing pay?",
        document=document,
        rows=rows,
        kinds=list(next(iter(rows.values()))["by_kind"]),
        names=NAMES,
        differences=differences,
        routers={name: document[name] for name in ("router", "rules_router") if document[name] is not None},
        gallery=shown,
    )
