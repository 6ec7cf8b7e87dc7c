"""The content that is logged of a run, computed from its folder before MLflow is used, so that it cannot fail half-way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from careedit_eval.compare import Mean, preferences_of, summarise
from careedit_eval.gate import Verdict
from careedit_eval.report.analysis import COMPARISON_FILE, GATE_FILE, analyse, document
from careedit_eval.report.page import GRID_FILE, REPORT_FILE
from careedit_eval.report.speed import speeds_of
from careedit_eval.results import EDITS_FILE, SCORES_FILE
from careedit_eval.runs import RUN_FILE, Run, SetFacts
from careedit_eval.timing import TIMING_FILE
from careedit_eval.tracking.names import safe_part, safe_parts

ARTIFACTS = (RUN_FILE, EDITS_FILE, SCORES_FILE, COMPARISON_FILE, GATE_FILE, TIMING_FILE, REPORT_FILE, GRID_FILE)
"""The files of a run's folder that are uploaded, if they exist."""
MAX_VALUE = 500
"""The maximum length of a parameter's value, in characters."""


@dataclass(frozen=True)
class Content:
    """The content of one MLflow run."""

    name: str
    """The name of the MLflow run."""
    tags: Mapping[str, str]
    """The tags of the MLflow run, set when it is created."""
    params: Mapping[str, str] = field(default_factory=dict)
    """The parameters of the MLflow run."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The metrics of the MLflow run."""
    datasets: tuple[tuple[Any, Mapping[str, str]], ...] = ()
    """The inputs of the MLflow run (mlflow.data), each with its tags."""
    facts: SetFacts | None = None
    """The set of a child run, if it can be deployed and is therefore registered; else None."""
    challenger: bool = False
    """Whether the gate judges the set of this child run."""


@dataclass(frozen=True)
class Contents:
    """The content of a parent run and its children."""

    parent: Content
    """The parent run: the whole evaluation."""
    children: tuple[Content, ...]
    """The child runs: one per benchmark and set."""
    files: tuple[Path, ...]
    """The artifacts of the parent run."""


def contents_of(run: Run, verdict: Verdict | None) -> Contents:
    """Everything that is logged of a run."""
    record, date = run.record, run.record.finished[:10]
    means = summarise(run.table, record.outputs)
    data = {facts.name: _dataset(run, facts.name) for facts in record.benchmarks}
    params = {"seeds": str(list(record.suite.seeds)), "primary": record.suite.primary}
    params |= {f"metric.{safe_part(spec.name)}": spec.key[:16] for spec in record.metrics}
    metrics = {"edited": float(record.edited), "measured": float(record.measured), "seconds": record.seconds}
    parent = Content(
        f"{record.suite.name}-{date}",
        _tags(run, verdict),
        {name: value[:MAX_VALUE] for name, value in params.items()},
        metrics | _decision(run, verdict) | _preferences(run),
        tuple((data[one.name], {"fingerprint": one.fingerprint}) for one in record.benchmarks),
    )
    children = tuple(
        _child(run, facts.name, arm, [one for one in means if (one.benchmark, one.arm) == (facts.name, arm)], data)
        for facts in record.benchmarks
        for arm in run.table.arms(facts.name)
    )
    files = tuple(run.folder / name for name in ARTIFACTS if (run.folder / name).is_file())
    return Contents(parent, children, files)


def is_own_set(run: Run, facts: SetFacts) -> bool:
    """Whether it is an expert set of the suite with its own router, which can be deployed."""
    own = any(arm.name == facts.name for arm in run.record.suite.sets)
    return own and facts.facts.get("kind") == "set" and facts.facts.get("expert") == "auto"


def _child(run: Run, benchmark: str, arm: str, means: Sequence[Mean], data: Mapping[str, Any]) -> Content:
    record = run.record
    facts = next((one for one in record.sets if one.name == arm), None)
    params = {"benchmark": benchmark}
    if facts is not None:
        params |= {**facts.facts, "identity": facts.identity_sha256}
    gate = record.suite.gate
    candidate = gate.set if gate is not None and gate.set else next((one.b for one in record.suite.compare), None)
    return Content(
        f"{benchmark}-{arm}-{record.finished[:10]}"[:MAX_VALUE],
        {"suite": record.suite.name, "benchmark": benchmark, "expert_set": arm, "schema_version": "1"},
        {name: value[:MAX_VALUE] for name, value in params.items()},
        _numbers(means),
        ((data[benchmark], {}),),
        facts if facts is not None and is_own_set(run, facts) else None,
        arm == candidate,
    )


def _numbers(means: Sequence[Mean]) -> dict[str, float]:
    """MLflow's metrics: `BENCHMARK/NUMBER/mean`, `/macro`, `/ci_low`, `/ci_high`, `/n`, `/errors`, and by kind."""
    kinds = safe_parts(one.kind for one in means if one.kind != "all")
    outputs = safe_parts(one.output for one in means)
    found: dict[str, float] = {}
    for one in means:
        stem = f"{safe_part(one.benchmark)}/{outputs[one.output]}"
        stem += "" if one.kind == "all" else f"/by_type/{kinds[one.kind]}"
        found |= {f"{stem}/n": float(one.n), f"{stem}/errors": float(one.errors)}
        if one.mean is not None:
            found[f"{stem}/mean"] = one.mean
        if one.macro is not None and one.kinds > 1:
            found[f"{stem}/macro"] = one.macro
        if one.interval is not None:
            found |= {f"{stem}/ci_low": one.interval.low, f"{stem}/ci_high": one.interval.high}
    return found


def _decision(run: Run, verdict: Verdict | None) -> dict[str, float]:
    """The difference of the primary number, the gate and the time, by names that are the same every night.

    `PRIMARY/difference`, `/ci_low`, `/ci_high` and `/p` are those of the first comparison on the first benchmark; all others
    have the prefix `PRIMARY/BENCHMARK/B-A/`.
    """
    primary = run.record.suite.primary
    found: dict[str, float] = {}
    lines = [
        (comparison, line)
        for comparison in _comparison(run)["comparisons"]
        for line in comparison["differences"]
        if (line["output"], line["kind"]) == (primary, "all")
    ]
    for i, (comparison, line) in enumerate(lines):
        pair = safe_part(f"{comparison['b']}-{comparison['a']}")
        stem = safe_part(primary) + ("" if i == 0 else f"/{safe_part(line['benchmark'])}/{pair}")
        low, high = line["interval"] or (None, None)
        numbers = {"difference": line["difference"], "ci_low": low, "ci_high": high, "p": line["p"]}
        found |= {f"{stem}/{name}": float(value) for name, value in numbers.items() if value is not None}
    if verdict is not None:
        found["gate/passed"] = float(verdict.passed)
    timed = next((one.found for one in speeds_of(run.timing) if one.found is not None), None)
    if timed is not None:
        found |= {"slowdown/ratio": timed.ratio, "slowdown/ci_low": timed.low, "slowdown/ci_high": timed.high}
    return found


def _preferences(run: Run) -> dict[str, float]:
    """The preferences of pairwise judges: `BENCHMARK/NUMBER/B_over_A/share`, `/ci_low`, `/ci_high`, `/n`, `/consistency`."""
    found: dict[str, float] = {}
    pairs = dict.fromkeys((line.rival, line.arm) for line in run.table.scores if line.rival is not None)
    for a, b in pairs:
        for one in preferences_of(run.table, a, b, run.record.metrics):
            stem = "/".join(map(safe_part, (one.benchmark, one.output, f"{b}_over_{a}")))
            found |= {f"{stem}/share": one.share, f"{stem}/n": float(one.wins + one.ties + one.losses)}
            if one.interval is not None:
                found |= {f"{stem}/ci_low": one.interval.low, f"{stem}/ci_high": one.interval.high}
            if one.consistency is not None:
                found[f"{stem}/consistency"] = one.consistency
    return found


def _comparison(run: Run) -> dict[str, Any]:
    """The analysis of the page, so that MLflow shows the same; computed if the page was not made yet."""
    file = run.folder / COMPARISON_FILE
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        found = document(analyse(run))
    return found


def _dataset(run: Run, name: str) -> Any:
    """The benchmark's index under careedit's own digest. MLflow's digest leaves out images, and all rows after 10,000."""
    import pandas  # type: ignore[import-untyped]
    from mlflow.data.pandas_dataset import from_pandas

    facts = next(one for one in run.record.benchmarks if one.name == name)
    first = run.table.arms(name)[0]
    lines = run.table.edits_of(name, first).values()
    rows = {
        line.sample_id: {"sample_id": line.sample_id, "kind": line.kind, "instruction": line.instruction}
        for line in lines
    }
    return from_pandas(
        pandas.DataFrame(list(rows.values())), name=f"{name}@{facts.revision}"[:200], digest=facts.fingerprint[:36]
    )


def _tags(run: Run, verdict: Verdict | None) -> dict[str, str]:
    record = run.record
    tags = {
        "suite": record.suite.name,
        "run_folder": record.id,
        "trigger": record.trigger,
        "schema_version": str(record.schema_version),
        "expert_set": ", ".join(arm.name for arm in record.suite.sets),
        "git_sha": record.environment.get("git_sha", "unknown"),
        "git_dirty": record.environment.get("git_dirty", "unknown"),
        "base_model": next((one.facts["base"] for one in record.sets if "base" in one.facts), "unknown"),
    }
    if record.suite.description:
        tags["mlflow.note.content"] = record.suite.description
    if verdict is not None:
        tags |= {"gate": verdict.outcome, "gate/outcome": verdict.outcome, "verdict": verdict.line}
    return {name: value[:5000] for name, value in tags.items()}
