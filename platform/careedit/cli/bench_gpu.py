"""The document of `careedit bench gpu` as a table and as a plot."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from careedit.cli.files import goal_cells
from careedit.errors import InputError
from careedit.files import write_atomic

Document = Mapping[str, Any]


def rows_of(document: Document) -> list[tuple[str, ...]]:
    """Rows of a table (figure, value, goal, verdict): the figures, then the seconds of each case."""
    rows: list[tuple[str, ...]] = [
        (name, "-" if value is None else f"{value:.3f}", *goal_cells(document["goals"].get(name)))
        for name, value in document["figures"].items()
    ]
    for name, case in document["cases"].items():
        if case["state"] != "measured":
            rows.append((name, "not measured", "-", case["reason"]))
            continue
        for key, value in case.items():
            times = value.items() if isinstance(value, dict) else [("", value)]
            for batch, number in times:
                if isinstance(number, int | float) and key != "took_s":
                    rows.append((f"{name}.{key}{batch and f'.{batch}'}", f"{number:.4g}", "-", "-"))
    return rows


def check_plot(path: Path) -> None:
    """Raise `InputError` for another suffix than .png, or without matplotlib. Call it before a long run."""
    if path.suffix != ".png":
        raise InputError(f"The plot {str(path)!r} must end in .png.")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise InputError("A plot needs matplotlib; install it with: pip install 'careedit[plan]'.") from None


def write_plot(path: Path, document: Document) -> None:
    """Write seconds per row by batch, and the seconds of a mixed batch by the way experts are applied, as a PNG."""
    from matplotlib.figure import Figure

    cases = document["cases"]
    figure = Figure(figsize=(9.2, 3.8), dpi=110, layout="constrained")
    steps, mixed = figure.subplots(1, 2)
    for name, label in (("steps", "eager"), ("compiled", "compiled")):
        times = {int(rows): seconds / int(rows) for rows, seconds in cases[name].get("step_s", {}).items()}
        if times:
            steps.plot(list(times), list(times.values()), marker="o", label=label)
    if steps.lines:
        steps.legend(fontsize="small")
    steps.set(title="seconds of a step per row", xlabel="rows in a batch")
    steps.set_ylim(bottom=0)
    batch = str(max(document["settings"]["batches"]))
    bars = {
        "merged": cases["merged"].get("batch_s"),
        "slots": cases["slots"].get("batch_s"),
        "spans": cases["peft_and_spans"].get("spans_s"),
        "peft": cases["peft_and_spans"].get("peft_s"),
        "merged, compiled": cases["compiled"].get("step_s", {}).get(batch),
        "slots, compiled": cases["compiled_slots"].get("batch_s"),
    }
    known = {name: seconds for name, seconds in bars.items() if seconds is not None}
    mixed.barh(list(known), list(known.values()))
    mixed.invert_yaxis()
    mixed.set(title=f"seconds of a step of {batch} rows, mixed experts (merged: one)")
    where = document["environment"]["device_name"] or document["environment"]["device"]
    reduced = ", reduced form: no measurement" if document["reduced"] else ""
    figure.suptitle(f"{document['family']} on {where}, {document['environment']['dtype']}{reduced}", fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(path, buffer.getvalue())
