"""Everything that is computed from a run's table: means, comparisons, ranking, verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from careedit.errors import InputError
from careedit_eval.compare import Difference, Flips, Mean, compare_arms, flips_of, summarise
from careedit_eval.gate import Verdict, judge_run
from careedit_eval.report.speed import Speed, speeds_of
from careedit_eval.report.told import Told, errors_of, not_applicable_of, notes_of
from careedit_eval.runs import Run, write_json
from careedit_eval.stats import Game, Strength, davidson_strengths

COMPARISON_FILE, GATE_FILE = "comparison.json", "gate.json"


@dataclass(frozen=True)
class Compared:
    """One comparison of the suite."""

    a: str
    """The set in use."""
    b: str
    """The set that may replace it."""
    differences: tuple[Difference, ...]
    """B - A, every number and kind."""
    flips: Flips
    """Where they differ most, by the primary number."""


@dataclass(frozen=True)
class Analysis:
    """All of it."""

    means: tuple[Mean, ...]
    """Every number of every set and kind."""
    compared: tuple[Compared, ...]
    """The comparisons."""
    verdict: Verdict | None
    """The gate's; None where the suite has none."""
    strengths: Mapping[str, tuple[Strength, ...]]
    """Three sets or more, by pairwise verdict's name: who is stronger than the first set."""
    errors: tuple[Told, ...]
    """Each error that stands in the place of an edit or a number, most frequent first."""
    not_applicable: tuple[Told, ...]
    """Why metrics say nothing of samples, which is nobody's error."""
    notes: tuple[Told, ...]
    """What a reader must know of edits and numbers: another size than the source's, a text that was cut."""
    speed: tuple[Speed, ...]
    """How long edits of compared sets take, timed by turns."""


def analyse(run: Run, *, pairs: tuple[tuple[str, str], ...] | None = None) -> Analysis:
    """Compute it; `pairs` are compared instead of the suite's own. Raises `InputError`."""
    table, record = run.table, run.record
    # A row that cannot be had is told as missing, and what it would be compared with is told without it.
    own = tuple((one.a, one.b) for one in record.suite.compare if not {one.a, one.b} & record.missing.keys())
    wanted = pairs if pairs is not None else own
    primary = record.outputs[record.suite.primary]
    compared = tuple(
        Compared(a, b, tuple(compare_arms(table, a, b, record.outputs)), flips_of(table, a, b, primary))
        for a, b in wanted
    )
    return Analysis(
        tuple(summarise(table, record.outputs)),
        compared,
        judge_run(run) if record.suite.gate is not None else None,
        _strengths(run),
        errors_of(table),
        not_applicable_of(table),
        notes_of(table),
        speeds_of(run.timing),
    )


def write_analysis(run: Run, analysis: Analysis) -> None:
    """Write `comparison.json` and, with a gate, `gate.json` into the run's folder."""
    write_json(run.folder / COMPARISON_FILE, document(analysis))
    if analysis.verdict is not None:
        write_json(run.folder / GATE_FILE, analysis.verdict.document())


def document(analysis: Analysis) -> dict[str, Any]:
    """Means, comparisons and ranking as JSON."""
    return {
        "schema_version": 1,
        "means": [_plain(one) for one in analysis.means],
        "comparisons": [
            {
                "a": one.a,
                "b": one.b,
                "differences": [_plain(two) | {"verdict": two.verdict} for two in one.differences],
                "losses": [_plain(two) for two in one.flips.losses],
                "wins": [_plain(two) for two in one.flips.wins],
            }
            for one in analysis.compared
        ],
        "strengths": {name: [one._asdict() for one in found] for name, found in analysis.strengths.items()},
        "errors": {one.what: one.times for one in analysis.errors},
        "error_samples": {one.what: list(one.samples) for one in analysis.errors},
        "not_applicable": {one.what: one.times for one in analysis.not_applicable},
        "notes": {one.what: one.sample_count for one in analysis.notes},
        "timing": [asdict(one) for one in analysis.speed],
    }


def _plain(one: Any) -> dict[str, Any]:
    """A dataclass as JSON data; an infinite gain, where one side failed, is null."""
    data = {
        key: (None if isinstance(value, float) and not math.isfinite(value) else value)
        for key, value in asdict(one).items()
    }
    bounds = data.get("interval")
    if bounds is not None:
        data["interval"] = list(bounds)
    return data


def _strengths(run: Run) -> dict[str, tuple[Strength, ...]]:
    """Davidson's model of the pairwise verdicts, for three sets or more; left out where they cannot rank them."""
    sets = [arm.name for arm in run.record.suite.sets]
    found: dict[str, tuple[Strength, ...]] = {}
    for output in {line.output for line in run.table.scores if line.rival is not None} if len(sets) > 2 else ():
        games = [
            Game(line.arm, line.rival, 1.0 if line.value > 0.5 else 0.0 if line.value < 0.5 else 0.5)
            for line in run.table.scores
            if line.output == output and line.rival is not None and line.value is not None
        ]
        try:
            found[output] = tuple(davidson_strengths(games, sets[0])[0])
        except InputError:
            continue
    return found
