"""One MLflow trace per edit: its stages as spans, its scores and votes as assessments. Computed before MLflow is used.

The record of an edit has the seconds of its stages but not its date. So a trace begins when the run ended, and its spans follow
each other from there; their lengths are the measured ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from careedit_eval.pipeline import Store
from careedit_eval.records import MetricSpec
from careedit_eval.results import EditLine, Pair, ScoreLine
from careedit_eval.runs import Run
from careedit_eval.tracking.names import safe_part
from careedit_eval.votes_file import ExportedVote

SAMPLES = 100
"""The default number of samples per benchmark whose edits are logged as traces. MLflow takes 10 to 30 traces per second."""


@dataclass(frozen=True)
class Stage:
    """One span."""

    name: str
    """The name of the stage: route, prepare, filter, judge, denoise or finish."""
    start: float
    """Seconds from the start of the edit."""
    seconds: float
    """The measured length in seconds."""
    parent: str | None = None
    """The stage that contains it; None for the edit itself."""
    facts: Mapping[str, Any] | None = None
    """What is known of the stage."""


@dataclass(frozen=True)
class Judged:
    """One assessment."""

    name: str
    """The name of the number, or "vote"."""
    source: Literal["CODE", "LLM_JUDGE", "HUMAN"]
    """Whether code, a judge or a person assessed the edit."""
    source_id: str
    """The metric's backbone or protocol, or the rater."""
    value: float | str | None
    """The number, or the vote; None if it could not be measured."""
    error: str | None = None
    """Why the number could not be measured."""
    rationale: str | None = None
    """The notes on the number; None without notes."""
    facts: Mapping[str, str] | None = None
    """The identity of the metric, or the other set of a vote."""
    milliseconds: int | None = None
    """When a vote was cast; None for a number, whose time is not recorded."""


@dataclass(frozen=True)
class Traced:
    """The content of one trace."""

    line: EditLine
    """The edit as the run's table has it."""
    seconds: float
    """The length of the edit; 0 if it is not known."""
    stages: tuple[Stage, ...]
    """The stages of the edit, parents before what they contain."""
    judged: tuple[Judged, ...]
    """The scores of the edit, and the errors in their place."""

    def id_in(self, run_id: str) -> str:
        """The id of its trace in an MLflow run: always the same, so that it is logged once."""
        return trace_id(run_id, self.line.sample_id, self.line.seed)


def trace_id(run_id: str, sample_id: str, seed: int) -> str:
    """The id of the trace of an edit in the MLflow run of its benchmark and set."""
    return f"tr-{hashlib.sha256(json.dumps([run_id, sample_id, seed]).encode()).hexdigest()[:32]}"


def chosen_pairs(run: Run, benchmark: str, samples: int) -> list[Pair]:
    """The samples whose edits are logged, with all seeds: the first by the hashes of their ids, so the same every night."""
    pairs = dict.fromkeys(pair for arm in run.table.arms(benchmark) for pair in run.table.edits_of(benchmark, arm))
    names = sorted(dict.fromkeys(name for name, _ in pairs), key=lambda name: hashlib.sha256(name.encode()).digest())
    kept = set(names[:samples])
    return [pair for pair in pairs if pair[0] in kept]


def traced_edits(run: Run, samples: int) -> dict[tuple[str, str], list[Traced]]:
    """The traces of each benchmark and set of the suite; its rows, such as the identity, have none."""
    arms = {arm.name for arm in run.record.suite.sets}
    pairs = {name: chosen_pairs(run, name, samples) for name in run.table.benchmarks}
    lines = {
        (benchmark, arm): [edits[pair] for pair in pairs[benchmark] if pair in edits]
        for benchmark in run.table.benchmarks
        for arm in run.table.arms(benchmark)
        if arm in arms and (edits := run.table.edits_of(benchmark, arm))
    }
    # Without the store, as after a copy of the run's folder alone, an edit has its length but no stages.
    rows = Store(run.store).edits() if (run.store / "format").is_file() else {}
    traces = {key: row.trace for key, row in rows.items()}
    scores = _scores(run, {(benchmark, *pair) for benchmark, some in pairs.items() for pair in some})
    specs = {output.name: spec for spec in run.record.metrics for output in spec.outputs}
    return {
        place: [
            _traced(line, traces.get(line.edit_key), scores.get((*place, line.sample_id, line.seed), ()), specs)
            for line in some
        ]
        for place, some in lines.items()
    }


def judged_votes(votes: Iterable[ExportedVote]) -> Iterator[tuple[ExportedVote, str, Judged]]:
    """Each vote as an assessment of both edits, with the set of the edit."""
    words = {"tie": "tie", "both_bad": "both bad"}
    for vote in votes:
        for side, arm, other in (("left", vote.left, vote.right), ("right", vote.right, vote.left)):
            value = words.get(vote.verdict) or ("better" if vote.verdict == side else "worse")
            facts = {"against": other, "side": side, "at": vote.at}
            yield vote, arm, Judged("vote", "HUMAN", vote.rater, value, facts=facts, milliseconds=vote.milliseconds)


def _scores(run: Run, wanted: set[tuple[str, str, int]]) -> dict[tuple[str, str, str, int], list[ScoreLine]]:
    found: dict[tuple[str, str, str, int], list[ScoreLine]] = {}
    for line in run.table.scores:
        if (line.benchmark, line.sample_id, line.seed) in wanted and line.applies:
            found.setdefault((line.benchmark, line.arm, line.sample_id, line.seed), []).append(line)
    return found


def _traced(line: EditLine, text: str | None, scores: Sequence[ScoreLine], specs: Mapping[str, MetricSpec]) -> Traced:
    stages = () if text is None else tuple(_stages(json.loads(text)))
    # A number without an edit repeats the edit's error.
    judged = tuple(_judged(score, specs[score.output]) for score in scores if line.error is None)
    return Traced(line, line.seconds or 0.0, stages, judged)


def _stages(trace: Mapping[str, Any]) -> Iterator[Stage]:
    """The stages of an `EditTrace` one after another, with the judge of its early filter inside of the filter."""
    filtered, routing = trace.get("filter"), trace.get("routing") or {}
    start = 0.0
    for name, seconds in (trace.get("seconds") or {}).items():
        facts: dict[str, Any] = {}
        if name == "route":
            facts = {key: routing[key] for key in ("weights", "feasible", "router", "reason") if key in routing}
        elif name == "denoise":
            facts = {key: trace[key] for key in ("steps", "nfe", "guidance", "application", "device") if key in trace}
        yield Stage(name, start, float(seconds), facts=facts)
        if name == "filter" and filtered:
            judge = {"judge": filtered.get("judge"), "chosen": filtered.get("chosen")}
            yield Stage("judge", start, float(filtered.get("judge_seconds", 0.0)), name, judge)
        start += float(seconds)


def _judged(score: ScoreLine, spec: MetricSpec) -> Judged:
    name = safe_part(score.output) + ("" if score.rival is None else f"_over_{safe_part(score.rival)}")
    facts = {"metric_key": spec.key, "metric": spec.name, "protocol": spec.protocol, "revision": spec.revision}
    if score.rival is not None:
        facts["against"] = score.rival
    source: Literal["CODE", "LLM_JUDGE"] = "LLM_JUDGE" if "request" in spec.settings else "CODE"
    source_id = spec.protocol if spec.backbone == "none" else spec.backbone
    return Judged(name, source, source_id, score.value, score.error, score.notes or None, facts)
