"""The plan as an image or a page: cost and GPUs over the load, per layout, with and without the early filter."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from careedit.errors import InputError
from careedit.files import write_atomic
from careedit_deployments.planning.plan import Sizing

SUFFIXES = (".png", ".html")
"""File suffixes that can be written."""

_LOOKS = {
    ("merged", False): ("#2f5fb3", "-"),
    ("merged", True): ("#2f5fb3", "--"),
    ("shared", False): ("#b3261e", "-"),
    ("shared", True): ("#b3261e", "--"),
}


def check_plot(path: Path) -> None:
    """Raise `InputError` if the file cannot be written. Call it before a long run."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"The plot {str(path)!r} has an unknown suffix; use {' or '.join(SUFFIXES)}.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"The folder {str(path.absolute().parent)!r} of the plot does not exist; create it first.")


def write_plot(path: Path, rows: Sequence[Sizing], caption: str) -> None:
    """Write the plot, or a page with it and the table, atomically."""
    picture = _draw(rows, caption)
    content = picture if path.suffix == ".png" else _page(rows, caption, picture).encode()
    write_atomic(path, content)


def _draw(rows: Sequence[Sizing], caption: str) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 4.2), dpi=110, layout="constrained")
    cost, gpus = figure.subplots(1, 2)
    for (layout, filtered), (colour, line) in _LOOKS.items():
        own = [row for row in rows if row.layout == layout and row.filtered == filtered and row.feasible]
        if own:
            label = f"{layout}, early filter {'on' if filtered else 'off'}"
            rates = [row.rate for row in own]
            cost.plot(rates, [row.usd_per_1000 for row in own], line, color=colour, marker="o", label=label)
            gpus.plot(rates, [row.gpus for row in own], line, color=colour, marker="o", label=label)
    for axes, title in ((cost, "US dollars for 1,000 edits"), (gpus, "GPUs")):
        axes.set(xscale="log", yscale="log", xlabel="edits per second", title=title)
        axes.grid(visible=True, which="both", alpha=0.25)
    if any(row.feasible for row in rows):
        cost.legend(fontsize="small")
    figure.suptitle(caption, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _page(rows: Sequence[Sizing], caption: str, picture: bytes) -> str:
    head = ("edits/s", "experts", "filter", "replicas", "judges", "GPUs", "p50", "p95", "busy", "$ / 1,000")
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(row)) + "</tr>" for row in rows)
    source = base64.b64encode(picture).decode()
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>careedit plan</title><style>'
        "body{font:15px/1.5 system-ui;margin:2rem auto;max-width:62rem;padding:0 1rem}img{max-width:100%}"
        "table{border-collapse:collapse}td,th{border-bottom:1px solid #ddd;padding:.3rem .7rem;text-align:right}</style>"
        f'<h1>careedit plan</h1><p>{html.escape(caption)}</p><img alt="cost and GPUs over the load" '
        f'src="data:image/png;base64,{source}"><table><tr>{"".join(f"<th>{name}</th>" for name in head)}</tr>'
        f"{body}</table></html>\n"
    )


def cells(row: Sizing) -> tuple[str, ...]:
    """Cells of a printed row. If the objective cannot be met, the last cell says why."""
    first = (f"{row.rate:g}", row.layout, "on" if row.filtered else "off")
    if not row.feasible:
        return (*first, "-", "-", "-", "-", "-", "-", row.why)
    numbers = (str(row.replicas), str(row.judges), f"{row.gpus:g}", f"{row.p50:.1f} s", f"{row.p95:.1f} s")
    return (*first, *numbers, f"{row.busy:.0%}", f"{row.usd_per_1000:.2f}")
