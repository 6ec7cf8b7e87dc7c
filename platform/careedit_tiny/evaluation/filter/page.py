"""The HTML page of `careedit eval filter`: quality over cost, the table, the judge and the goals in one file, no script."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from careedit.errors import CareEditError
from careedit.files import png_data_url
from careedit.report.page import write_template

CHOOSERS = {
    "none": "no choice",
    "random": "random",
    "clip": "CLIP, instruction",
    "clip_caption": "CLIP, caption of the truth",
    "judge": "judge",
    "oracle_preview": "nearest preview to the truth",
    "oracle": "oracle",
}
"""The names of the choosers on the page."""
COLOURS = {"restart": "#b3261e", "continue": "#2f5fb3", "halving": "#17803d"}
"""The colour of each strategy in the plot."""
STYLES = {"judge": ("-", 1.0), "oracle": (":", 0.55), "clip": ("--", 0.45)}
"""Line style and opacity of the choosers that are drawn for each strategy."""

Row = Mapping[str, Any]


def check_plot() -> None:
    """Raise `CareEditError` if matplotlib is missing, before a long run instead of after it."""
    figure_class()


def draw_plot(document: Mapping[str, Any]) -> Image.Image:
    """Plot the share of right edits over NFE as an RGB image: per strategy and chooser the best row of each cost.

    The judge's rows have intervals. Raises `CareEditError` if matplotlib is missing.
    """
    figure = figure_class()(figsize=(8.6, 4.8), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    rows: Sequence[Row] = document["rows"]
    single = rows[0]
    axes.axhline(100 * single["compliance"], color="#5f6368", linewidth=1, linestyle="-.", label="one noise")
    for strategy, colour in COLOURS.items():
        for chooser, (line, opacity) in STYLES.items():
            own = [row for row in rows if row["strategy"] == strategy and row["chooser"] == chooser]
            hull = _hull([single, *own])
            if not own:
                continue
            label = f"{strategy}, {CHOOSERS[chooser]}"
            axes.plot(*_points(hull), line, color=colour, alpha=opacity, linewidth=1.6, label=label)
            if chooser == "judge":
                ends = [[100 * abs(row["compliance"] - row["ci"][i]) for row in own] for i in (0, 1)]
                axes.errorbar(*_points(own), yerr=ends, fmt="o", color=colour, markersize=4, elinewidth=0.6, alpha=0.75)
    random = [row for row in rows if row["chooser"] == "random"]
    axes.plot(*_points(random), "x", color="#a5a8ad", markersize=4, label=CHOOSERS["random"])
    axes.set(xlabel="NFE per edit", ylabel="right edits, %")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, ncols=2)
    file = io.BytesIO()
    # Without a version in it, the same figures are the same file.
    figure.savefig(file, format="png", metadata={"Software": None})
    with Image.open(file) as picture:
        return picture.convert("RGB")


def write_filter_page(path: Path, document: Mapping[str, Any]) -> None:
    """Write the page of a report's `document` with its plot inside, atomically."""
    settings: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in document["rows"]:
        settings.setdefault((row["strategy"], row["candidates"], row["preview_steps"]), {})[row["chooser"]] = row
    table = [
        {"setting": setting, "nfe": next(iter(found.values()))["nfe"], "rows": found}
        for setting, found in settings.items()
    ]
    known = [name for name in CHOOSERS if any(name in entry["rows"] for entry in table) and name != "none"]
    write_template(
        path,
        "page.html.j2",
        package="careedit_tiny.evaluation.filter",
        title="careedit: does the early filter pay?",
        document=document,
        plot=png_data_url(draw_plot(document)),
        table=table[1:],
        single=document["rows"][0],
        choosers=known,
        names=CHOOSERS,
    )


def _points(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    return [row["nfe"] for row in rows], [100 * row["compliance"] for row in rows]


def _hull(rows: Sequence[Row]) -> list[Row]:
    """The rows that are better than every cheaper row, by cost."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["nfe"], -row["compliance"])):
        if not kept or row["compliance"] > kept[-1]["compliance"]:
            kept.append(row)
    return kept


def figure_class() -> Any:
    """matplotlib's `Figure`, which needs no display. Raises `CareEditError` if matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: F401 - Figure.savefig uses it
        from matplotlib.figure import Figure
    except ImportError:
        raise CareEditError("The plot needs matplotlib; install it with: pip install 'careedit[train]'.") from None
    return Figure
