"""The page of `careedit eval claims`, as Markdown and as HTML, from the document alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from careedit.files import write_atomic
from careedit.report.page import write_template
from careedit_tiny.evaluation.claims.claim import Figure

PACKAGE = "careedit_tiny.evaluation.claims"
PAGE = "claims.md"
"""File name of the Markdown page in the folder of a run."""

NOTHING: Mapping[str, Any] = {"budget": "", "columns": (), "rows": (), "picture": None}
"""What the page shows of a claim that was not measured."""


def write_pages(document: Mapping[str, Any], out: Path) -> None:
    """Write `claims.md` and `claims.html` to the folder of a run, next to its `pictures`."""
    content = {"document": document, "claims": [_shown(row) for row in document["claims"]]}
    # Markdown is not escaped: the document has no text of users but the name of the expert set.
    environment = Environment(
        loader=PackageLoader(PACKAGE, "."),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_atomic(out / PAGE, environment.get_template("page.md.j2").render(content))
    write_template(out / "claims.html", "page.html.j2", package=PACKAGE, **content)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """The claim with its figures as text."""
    finding = row["finding"]
    figures = {} if finding is None else {name: str(Figure(**one)) for name, one in finding["figures"].items()}
    decides = {name: figures[name] for name in row["decided_by"] if name in figures}
    return {**row, "figures": figures, "decides": decides, "finding": finding or NOTHING}
