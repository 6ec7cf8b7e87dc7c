"""Everything that is computed from a run's table: means, comparisons, ranking, verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from careedit.errors import InputError
from careedit_eval.compare import (
    Difference,
    Flips,
    Mean,
    Preference,
    compare_arms,
    flips_of,
    games_of,
    pairwise_outputs,
    preferences_of,
    summarise,
)
from careedit_eval.compare.differences import ALL
from careedit_eval.gate import Verdict, judge_run
from careedit_eval.report.remarks import Remark, errors_of, not_applicable_of, notes_of
from careedit_eval.report.routing import Choice, choices_of
from careedit_eval.report.speed import Speed, speeds_of
from careedit_eval.runs import Run, write_json
from careedit_eval.stats import Strength, davidson_strengths
from careedit_eval.suite import Suite

COMPARISON_FILE, GATE_FILE = "comparison.json", "gate.json"


@dataclass(frozen=True)
class Compared:
    """One comparison of the suite with its results."""

    a: str
    """The name of the set in use."""
    b: str
    """The name of the set that may replace it."""
    differences: tuple[Difference, ...]
    """The differences B - A, for every number and kind."""
    flips: Flips
    """The samples on which they differ most, by the primary number."""
    preferences: tuple[Preference, ...] = ()
    """The preferences of pairwise judges between the two sets."""


@dataclass(frozen=True)
class Ranking:
    """The ranking of three sets or more by one pairwise judge."""

    strengths: tuple[Strength, ...]
    """The strengths, strongest first, relative to the first set."""
    tie: float
    """Davidson's tie parameter v: with equal sets a share v / (2 + v) of the verdicts are ties."""


@dataclass(frozen=True)
class Analysis:
    """All results that are computed from a run."""

    means: tuple[Mean, ...]
    """The means of every number of every set and kind."""
    compared: tuple[Compared, ...]
    """The comparisons that the suite asks for."""
    verdict: Verdict | None
    """The verdict of the gate; None if the suite has no gate."""
    rankings: Mapping[str, Ranking]
    """Rankings of three sets or more, by the name of the number with the winner."""
    errors: tuple[Remark, ...]
    """Each error that replaces an edit or a number, the most frequent first."""
    not_applicable: tuple[Remark, ...]
    """Why metrics do not apply to samples, which is not an error."""
    notes: tuple[Remark, ...]
    """Notes on edits and numbers: another size than the source's, a text that was truncated."""
    speed: tuple[Speed, ...]
    """The times of edits of compared sets."""
    preferences: tuple[Preference, ...] = ()
    """The preferences of pairwise judges among sets that are not compared here."""
    choices: tuple[Choice, ...] = ()
    """What the routers' choices are worth."""


def analyse(run: Run, *, pairs: tuple[tuple[str, str], ...] | None = None) -> Analysis:
    """Compute the analysis; `pairs` are compared instead of the suite's own. Raises `InputError`."""
    table, record = run.table, run.record
    # A row that cannot be measured is reported as missing, and so are its comparisons.
    own = tuple((one.a, one.b) for one in record.suite.compare if not {one.a, one.b} & record.missing.keys())
    wanted = pairs if pairs is not None else own
    primary, alone = record.outputs[record.suite.primary], _alone(record.suite)
    compared = tuple(
        Compared(
            a,
            b,
            tuple(compare_arms(table, a, b, record.outputs, alone=alone)),
            flips_of(table, a, b, primary),
            tuple(preferences_of(table, a, b, record.metrics)),
        )
        for a, b in wanted
    )
    return Analysis(
        tuple(summarise(table, record.outputs)),
        compared,
        judge_run(run) if record.suite.gate is not None else None,
        _rankings(run),
        errors_of(table),
        not_applicable_of(table),
        notes_of(table),
        speeds_of(run.timing),
        tuple(one for a, b in _judged(run, wanted) for one in preferences_of(table, a, b, record.metrics)),
        tuple(choices_of(run)),
    )


def write_analysis(run: Run, analysis: Analysis) -> None:
    """Write `comparison.json` and, with a gate, `gate.json` into the run's folder."""
    write_json(run.folder / COMPARISON_FILE, document(analysis))
    if analysis.verdict is not None:
        write_json(run.folder / GATE_FILE, analysis.verdict.document())


def document(analysis: Analysis) -> dict[str, Any]:
    """Means, comparisons and ranking as JSON data."""
    return {
        # Version 2: p by random signs, `alone` and `level` per line, preferences, rankings in place of strengths.
        "schema_version": 2,
        "means": [_plain(one) for one in analysis.means],
        "comparisons": [
            {
                "a": one.a,
                "b": one.b,
                "differences": [_plain(two) | {"verdict": two.verdict} for two in one.differences],
                "preferences": [_preference(two) for two in one.preferences],
                "losses": [_plain(two) for two in one.flips.losses],
                "wins": [_plain(two) for two in one.flips.wins],
            }
            for one in analysis.compared
        ],
        "preferences": [_preference(one) for one in analysis.preferences],
        "rankings": {
            name: {"tie": found.tie, "strengths": [one._asdict() for one in found.strengths]}
            for name, found in analysis.rankings.items()
        },
        "errors": {one.what: one.times for one in analysis.errors},
        "error_samples": {one.what: list(one.samples) for one in analysis.errors},
        "not_applicable": {one.what: one.times for one in analysis.not_applicable},
        "notes": {one.what: one.sample_count for one in analysis.notes},
        "timing": [asdict(one) for one in analysis.speed],
        "routing": [asdict(one) for one in analysis.choices],
    }


def _plain(one: Any) -> dict[str, Any]:
    """A dataclass as JSON data; an infinite gain, when one set failed, is null."""
    data = {
        key: (None if isinstance(value, float) and not math.isfinite(value) else value)
        for key, value in asdict(one).items()
    }
    data.pop("spread", None)
    bounds = data.get("interval")
    if bounds is not None:
        data["interval"] = list(bounds)
    return data


def _preference(one: Preference) -> dict[str, Any]:
    return _plain(one) | {"verdict": one.verdict, "warning": one.warning}


def _judged(run: Run, compared: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """Pairs of sets with pairwise verdicts that are not compared."""
    there = {(line.rival, line.arm): None for line in run.table.scores if line.rival is not None}
    return [pair for pair in there if pair not in compared and pair[::-1] not in compared]


def _alone(suite: Suite) -> set[tuple[str, str]]:
    """The numbers and kinds that are tested alone: the primary one, and those with a margin in the gate."""
    margins = suite.gate.margins if suite.gate is not None else {}
    named = [name.partition("/") for name in margins]
    return {(suite.primary, ALL), *((output, kind or ALL) for output, _, kind in named)}


def _rankings(run: Run) -> dict[str, Ranking]:
    """Davidson's model of the verdicts, for three sets or more; left out if the verdicts cannot rank them."""
    sets = [arm.name for arm in run.record.suite.sets]
    found: dict[str, Ranking] = {}
    for win, _ in pairwise_outputs(run.record.metrics) if len(sets) > 2 else ():
        try:
            strengths, tie = davidson_strengths(games_of(run.table, win.name), sets[0])
        except InputError:
            continue
        found[win.name] = Ranking(tuple(strengths), tie)
    return found
