"""A report as pictures for its page."""

from __future__ import annotations

from careedit_tiny.bench.quality.run import QualityReport, Shown
from careedit_tiny.report.quality import GalleryPicture, GalleryRow

HIDDEN = ("identity", "best_single")
"""Rows whose picture is another one's: the source, an expert's."""


def gallery_rows(report: QualityReport) -> list[GalleryRow]:
    """One scene of each kind with what every row made of it: source, what narrowed it, edits, truth."""
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
