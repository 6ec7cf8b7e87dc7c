"""The page of edits: before, after and truth side by side, with the expert and the verdict; one file, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from careedit.files import png_data_url, write_atomic


@dataclass(frozen=True, slots=True)
class EditRow:
    """One edit on the page."""

    kind: str
    """The kind of edit, for the summary."""
    instruction: str
    """What was asked for."""
    pictures: Mapping[str, Image.Image]
    """Pictures by caption, in order."""
    right: bool
    """Whether the verdict is good."""
    verdict: str
    """The verdict in words."""
    routing: str
    """Which experts, and why."""


def write_edit_page(path: Path, title: str, intro: Sequence[str], rows: Sequence[EditRow]) -> None:
    """Write the page, its pictures inside, through a temporary name."""
    kinds = list(dict.fromkeys(row.kind for row in rows))
    summary = [
        (kind, sum(row.right for row in rows if row.kind == kind), sum(row.kind == kind for row in rows))
        for kind in kinds
    ]
    summary.append(("all", sum(row.right for row in rows), len(rows)))
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
    write_template(path, "edits.html.j2", title=title, intro=intro, rows=shown, summary=summary)


def write_template(path: Path, template: str, *, package: str = "careedit.report", **context: object) -> None:
    """Fill a template of a package and write it through a temporary name."""
    environment = Environment(loader=PackageLoader(package, "."), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template(template).render(context)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
