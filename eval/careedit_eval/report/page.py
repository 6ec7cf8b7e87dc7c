"""The report: one HTML file that opens without a server, with images and plots inside."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from careedit.files import png_data_url, write_atomic
from careedit_eval.compare import Difference, Flip
from careedit_eval.compare.differences import ALL
from careedit_eval.compare.words import number, numbers, signed
from careedit_eval.report.analysis import Analysis, Compared
from careedit_eval.report.decision import SEED, WIDTH, Decision, decision_of
from careedit_eval.report.pictures import Gallery, small, write_grid
from careedit_eval.report.remarks import failed_samples
from careedit_eval.report.routing import switches_of, usage_of
from careedit_eval.report.tables import NAMES, means_table, unread_replies
from careedit_eval.runs import Run

REPORT_FILE, GRID_FILE = "report.html", "grid.png"
MOST = 200
"""The maximum number of errors, samples with errors, and notes that the page lists; the others are counted."""
PLOT = 120
"""The width of an interval's plot in a table, in pixels."""
THUMB = 160
"""The longest side of an image on the first screen, in pixels."""


def write_report(run: Run, analysis: Analysis, path: Path | None = None) -> Path:
    """Write `report.html` and `grid.png` into the run's folder, or only the page to `path`, and return the page's path."""
    gallery = Gallery(run)
    decision = decision_of(run, analysis)
    shown = [_compared(run, one, gallery) for one in analysis.compared]
    there = {card["id"] for one in shown for card in (*one["losses"], *one["wins"])}
    pair = tuple(name for name in (decision.a, decision.b) if name is not None)
    shots = [[_shot(run, flip, pair, gallery) for flip in flips] for flips in (decision.random, decision.worst)]
    further = {_id(flip, decision.b): flip for flip in (*decision.random, *decision.worst)}
    environment = Environment(
        loader=PackageLoader("careedit_eval.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"number": number, "signed": signed, "numbers": numbers}
    # The policy allows the page's own script and style and nothing else, whatever an instruction contains.
    script, style = (_source(environment, name) for name in ("report.js", "report.css"))
    text = environment.get_template("report.html.j2").render(
        run=run.record,
        command=shlex.quote(run.record.id),
        decision=decision,
        width=WIDTH,
        script=script,
        style=style,
        policy=f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}",
        seed=SEED,
        random=shots[0],
        worst=shots[1],
        further=[_card(run, flip, pair, gallery) for name, flip in further.items() if name not in there],
        verdict=analysis.verdict,
        checks=analysis.verdict.checks if analysis.verdict is not None else (),
        tables=[means_table(run, analysis.means, facts.name, pair) for facts in run.record.benchmarks],
        compared=shown,
        routing=_routing(run, decision),
        choices=analysis.choices,
        unknown_weights=[spec.name for spec in run.record.metrics if spec.weights == "unknown"],
        rankings=analysis.rankings,
        preferences=analysis.preferences,
        errors=analysis.errors,
        failed=failed_samples(run.table),
        unread=unread_replies(analysis.means),
        not_applicable=analysis.not_applicable,
        notes=analysis.notes,
        speed=analysis.speed,
        most=MOST,
        names=NAMES,
        edits=len(run.table.edits),
    )
    write_atomic(path or run.folder / REPORT_FILE, text)
    if path is None and analysis.compared:
        first = analysis.compared[0]
        flips = (*first.flips.losses, *first.flips.wins[:5]) or decision.worst
        write_grid(run.folder / GRID_FILE, [gallery.of(flip, (first.a, first.b)) for flip in flips])
    return path or run.folder / REPORT_FILE


def _source(environment: Environment, name: str) -> Markup:
    """A file of the page's own code, as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _hash(code: str) -> str:
    """The source expression that allows an inline script or style with this content."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode('ascii')}'"


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
        "losses": [_card(run, flip, (one.a, one.b), gallery) for flip in one.flips.losses],
        "wins": [_card(run, flip, (one.a, one.b), gallery) for flip in one.flips.wins],
        "preferences": one.preferences,
        "unpaired": max((len(two.unpaired) for two in one.differences), default=0),
    }


def _plot(one: Difference, among: Sequence[Difference]) -> dict[str, float] | None:
    """Pixels of an interval on a scale that all differences of its number share, zero in the middle."""
    if one.interval is None or one.difference is None:
        return None
    ends = [abs(end) for two in among if two.output == one.output and two.interval for end in two.interval]
    scale = (PLOT / 2 - 6) / (max(ends) or 1.0)
    places = {"low": one.interval.low, "middle": one.difference, "high": one.interval.high}
    return {name: round(PLOT / 2 + value * scale, 1) for name, value in places.items()}


def _routing(run: Run, decision: Decision) -> dict[str, Any]:
    """Who chose whom: the experts of the suite's sets by kind, and where the two compared sets differ."""
    arms = [arm.name for arm in run.record.suite.sets]
    arms += [arm for arm in (decision.a, decision.b) if arm is not None and arm not in arms]
    usage = [
        (benchmark, [found for arm in arms if (found := usage_of(run.table, benchmark, arm)) is not None])
        for benchmark in run.table.benchmarks
    ]
    return {
        "usage": [(benchmark, found) for benchmark, found in usage if found],
        "switches": switches_of(run, decision.a, decision.b) if decision.a is not None else [],
    }


def _id(flip: Flip, b: str) -> str:
    return f"{b}-{flip.benchmark}-{flip.sample_id}-{flip.seed}"


def _shot(run: Run, flip: Flip, arms: Sequence[str], gallery: Gallery) -> dict[str, Any]:
    """One sample of the first screen."""
    line = run.table.edits_of(flip.benchmark, arms[-1]).get((flip.sample_id, flip.seed))
    values = [flip.a, flip.b][-len(arms) :]
    return {
        "id": _id(flip, arms[-1]),
        "flip": flip,
        "columns": ["source", *arms, "truth"],
        "before_after": " → ".join(numbers(values)),
        "instruction": line.instruction if line is not None else "",
        "pictures": {
            caption: png_data_url(small(picture, THUMB)) for caption, picture in gallery.of(flip, arms).items()
        },
        "error": line.error if line is not None else None,
    }


def _card(run: Run, flip: Flip, arms: Sequence[str], gallery: Gallery) -> dict[str, Any]:
    """One sample: images, instruction, numbers of both sets, and the chosen experts."""
    pair = (flip.sample_id, flip.seed)
    lines = {arm: run.table.edits_of(flip.benchmark, arm).get(pair) for arm in arms}
    found = []
    for output in run.record.outputs:
        scores = [run.table.column(flip.benchmark, arm, output).get(pair) for arm in arms]
        if all(line is not None for line in scores):
            found.append((output, numbers(None if line is None else line.value for line in scores)))
    return {
        "id": _id(flip, arms[-1]),
        "flip": flip,
        "instruction": next((line.instruction for line in lines.values() if line is not None), ""),
        "pictures": [(caption, png_data_url(picture)) for caption, picture in gallery.of(flip, arms).items()],
        "numbers": found,
        "experts": [(arm, line.experts) for arm, line in lines.items() if line is not None and line.experts],
        "errors": [(arm, line.error) for arm, line in lines.items() if line is not None and line.error],
    }
