"""The report: one HTML file that opens without a server, with images and plots inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from careedit.files import png_data_url, write_atomic
from careedit_eval.compare import Difference, Flip, Mean
from careedit_eval.compare.differences import ALL
from careedit_eval.compare.words import number, signed
from careedit_eval.gate import Check, Verdict
from careedit_eval.report.analysis import Analysis, Compared
from careedit_eval.report.pictures import Gallery, write_grid
from careedit_eval.runs import Run

REPORT_FILE, GRID_FILE = "report.html", "grid.png"
REFERENCE = ("identity", "truth", "base", "best_single", "unified", "oracle")
"""Rows that are shown after the sets, in this order."""
NAMES = {
    "identity": "identity (no edit)",
    "truth": "truth (the target itself)",
    "base": "base alone",
    "best_single": "best single expert",
    "unified": "unified LoRA",
    "oracle": "oracle routing",
}
MOST = 200
"""The maximum number of errors, and of notes, that the page lists; the others are counted."""
PLOT = 180
"""The width of an interval's plot, in pixels."""


def write_report(run: Run, analysis: Analysis) -> Path:
    """Write `report.html` and `grid.png` into the run's folder and return the page's path."""
    gallery = Gallery(run)
    shown = [_compared(run, one, gallery) for one in analysis.compared]
    environment = Environment(
        loader=PackageLoader("careedit_eval.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"number": number, "signed": signed}
    text = environment.get_template("report.html.j2").render(
        run=run.record,
        verdict=analysis.verdict,
        gate=_gate(run, analysis.verdict),
        benchmarks=[_benchmark(run, analysis.means, facts.name) for facts in run.record.benchmarks],
        compared=shown,
        rankings=analysis.rankings,
        preferences=analysis.preferences,
        errors=analysis.errors,
        not_applicable=analysis.not_applicable,
        notes=analysis.notes,
        speed=analysis.speed,
        most=MOST,
        names=NAMES,
        edits=len(run.table.edits),
    )
    path = run.folder / REPORT_FILE
    write_atomic(path, text)
    if analysis.compared:
        first = analysis.compared[0]
        rows = [gallery.of(flip, (first.a, first.b)) for flip in (*first.flips.losses, *first.flips.wins[:5])]
        write_grid(run.folder / GRID_FILE, rows)
    return path


def _benchmark(run: Run, means: Sequence[Mean], name: str) -> dict[str, Any]:
    """The tables of one benchmark: per kind, rows of sets and columns of numbers."""
    here = [one for one in means if one.benchmark == name]
    arms = run.table.arms(name)
    own = [arm.name for arm in run.record.suite.sets]
    singles = sorted(arm for arm in arms if arm.startswith("single/"))
    order = [*own, *(arm for arm in REFERENCE if arm in arms and arm not in own), *singles]
    outputs = [output for output in run.record.outputs if any(one.output == output for one in here)]
    cells = {(one.kind, one.arm, one.output): one for one in here}
    kinds = [ALL, *run.table.kinds(name)]
    return {
        "name": name,
        "facts": next(one for one in run.record.benchmarks if one.name == name),
        "outputs": [(output, run.record.outputs[output].better) for output in outputs],
        "informing": [output for output in outputs if run.record.outputs[output].information],
        "kinds": kinds,
        "rows": {
            kind: [(arm, arm in own, [cells.get((kind, arm, output)) for output in outputs]) for arm in order]
            for kind in kinds
        },
    }


def _compared(run: Run, one: Compared, gallery: Gallery) -> dict[str, Any]:
    """One comparison as the page shows it."""
    differences = [two for two in one.differences if two.pairs]
    kinds = sorted({flip.kind for flip in (*one.flips.losses, *one.flips.wins)})
    return {
        "a": one.a,
        "b": one.b,
        "whole": [(two, _plot(two, differences)) for two in differences if two.kind == ALL],
        "by_kind": [(two, _plot(two, differences)) for two in differences if two.kind != ALL],
        "kinds": kinds,
        "losses": [_card(run, flip, one, gallery) for flip in one.flips.losses],
        "wins": [_card(run, flip, one, gallery) for flip in one.flips.wins],
        "preferences": one.preferences,
        "unpaired": max((len(two.unpaired) for two in one.differences), default=0),
    }


def _plot(one: Difference, among: Sequence[Difference]) -> dict[str, float] | None:
    """Pixels of an interval on a scale that all differences of its number share, zero in the middle."""
    if one.interval is None or one.difference is None:
        return None
    ends = [abs(end) for two in among if two.output == one.output and two.interval for end in two.interval]
    return _pixels({"low": one.interval.low, "middle": one.difference, "high": one.interval.high}, max(ends))


def _pixels(places: Mapping[str, float], reach: float) -> dict[str, float]:
    """Places on a plot whose ends are `reach` away from its middle."""
    scale = (PLOT / 2 - 6) / (reach or 1.0)
    return {name: round(PLOT / 2 + value * scale, 1) for name, value in places.items()}


def _gate(run: Run, verdict: Verdict | None) -> dict[str, Any]:
    """The gate's checks as the page shows them: margins with a plot each, and the others."""
    checks = verdict.checks if verdict is not None else ()
    narrowed = run.record.narrowed
    return {
        "partial": narrowed.reason if narrowed is not None else None,
        "margins": [(check, _margin_plot(check)) for check in checks if check.name == "margin"],
        "others": [check for check in checks if check.name != "margin"],
    }


def _margin_plot(check: Check) -> dict[str, float] | None:
    """An interval with zero in the middle and the margin."""
    if check.interval is None or check.estimate is None:
        return None
    margin = check.bound if check.better == "lower" else -check.bound
    places = {"low": check.interval.low, "middle": check.estimate, "high": check.interval.high, "margin": margin}
    return _pixels(places, max(abs(place) for place in places.values()))


def _card(run: Run, flip: Flip, one: Compared, gallery: Gallery) -> dict[str, Any]:
    """One sample: images, instruction, numbers of both sets, and the chosen experts."""
    lines = {arm: run.table.edits_of(flip.benchmark, arm).get((flip.sample_id, flip.seed)) for arm in (one.a, one.b)}
    numbers = []
    for output in run.record.outputs:
        both = [
            run.table.column(flip.benchmark, arm, output).get((flip.sample_id, flip.seed)) for arm in (one.a, one.b)
        ]
        if all(line is not None for line in both):
            numbers.append((output, *(None if line is None else line.value for line in both)))
    return {
        "id": f"{one.b}-{flip.benchmark}-{flip.sample_id}-{flip.seed}",
        "flip": flip,
        "instruction": next((line.instruction for line in lines.values() if line is not None), ""),
        "pictures": [(caption, png_data_url(picture)) for caption, picture in gallery.of(flip, (one.a, one.b)).items()],
        "numbers": numbers,
        "experts": [(arm, line.experts) for arm, line in lines.items() if line is not None and line.experts],
        "errors": [(arm, line.error) for arm, line in lines.items() if line is not None and line.error],
    }
