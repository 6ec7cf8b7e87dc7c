"""A page of edits: figures, then before, after and right result side by side, with expert and verdict; one file, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from careedit.files import png_data_url, write_atomic
from careedit.stats import Interval


@dataclass(frozen=True, slots=True)
class EditRow:
    """One edit on the page."""

    kind: str
    """Kind of the edit, by which the summary counts."""
    instruction: str
    """Instruction of the edit, as the user wrote it."""
    pictures: Mapping[str, Image.Image]
    """Images by their captions, in the order of display."""
    right: bool
    """Whether the edit is right; it sets the verdict's colour and the summary's count."""
    verdict: str
    """Verdict on the edit, as a sentence for people."""
    routing: str
    """Chosen experts and the reason for the choice."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number on the page."""

    name: str
    """Name of the figure, as the page shows it."""
    value: float
    """The mean, or a share from 0 to 1."""
    interval: Interval | None
    """The 95 % interval of the value; None if there are too few images for one."""
    count: int
    """Number of images behind the value."""
    meaning: str
    """How to read the number, as a sentence."""
    share: bool = False
    """Whether the value is a share, which is shown in percent. Default: no."""

    def text(self, value: float) -> str:
        """A value of this figure as the page shows it."""
        # The sum turns -0.0 into 0.0.
        return f"{value:.0%}".replace("%", " %") if self.share else f"{round(value, 4) + 0.0:.4f}"


def write_edit_page(
    path: Path, title: str, intro: Sequence[str], rows: Sequence[EditRow], figures: Sequence[Figure] = ()
) -> None:
    """Write the page atomically, with its images inside."""
    kinds = list(dict.fromkeys(row.kind for row in rows))
    summary = [
        (kind, sum(row.right for row in rows if row.kind == kind), sum(row.kind == kind for row in rows))
        for kind in kinds
    ]
    summary.append(("all", sum(row.right for row in rows), len(rows)))
    widest = max((len(row.pictures) for row in rows), default=0)
    shown = [
        {
            "kind": row.kind,
            "instruction": row.instruction,
            "pictures": [(name, png_data_url(picture)) for name, picture in row.pictures.items()],
            "right": row.right,
            "verdict": row.verdict,
            "routing": row.routing,
        }
        for row in rows
    ]
    write_template(
        path, "edits.html.j2", title=title, intro=intro, rows=shown, summary=summary, figures=figures, widest=widest
    )


def write_template(path: Path, template: str, *, package: str = "careedit.report", **context: object) -> None:
    """Fill a template of a package and write the result atomically."""
    environment = Environment(loader=PackageLoader(package, "."), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template(template).render(context)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
