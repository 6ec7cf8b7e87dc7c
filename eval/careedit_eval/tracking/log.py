"""An evaluation as MLflow runs: one parent, and a child per benchmark and set, from what is in the run's folder.

Nothing but the folder is needed, so a run whose server was down is logged later. It is logged once: the folder remembers
where.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from careedit_eval.compare import Mean, summarise
from careedit_eval.gate import Verdict
from careedit_eval.runs import RUN_FILE, Run, SetFacts, write_json
from careedit_eval.tracking.registry import CHALLENGER, register_set
from careedit_eval.tracking.store import experiment_of, tracking

TRACKED_FILE = "mlflow.json"
"""Says where a run was logged."""
ARTIFACTS = (RUN_FILE, "edits.parquet", "scores.parquet", "comparison.json", "gate.json", "report.html", "grid.png")
"""Files of a run's folder that are uploaded, where they are there."""
_AT_ONCE = 500
"""Metrics per request; MLflow takes 1,000."""


def log_run(run: Run, uri: str, verdict: Verdict | None = None) -> str:
    """Log a run to the MLflow at `uri`; the parent run's id. Raises `TrackingError`; the run's folder is not changed then."""
    mark = run.folder / TRACKED_FILE
    if mark.is_file() and (known := json.loads(mark.read_text("utf-8")))["uri"] == uri:
        return str(known["run_id"])
    with tracking(uri):
        run_id = _log(run, verdict)
    write_json(mark, {"uri": uri, "run_id": run_id})
    return run_id


def _log(run: Run, verdict: Verdict | None) -> str:
    import mlflow

    record, date = run.record, run.record.finished[:10]
    means = summarise(run.table, record.outputs)
    mlflow.set_experiment(experiment_id=experiment_of(f"eval/{record.suite.name}"))
    with mlflow.start_run(
        run_name=f"{record.suite.name}-{date}", description=record.suite.description or None
    ) as parent:
        mlflow.set_tags(_tags(run, verdict))
        mlflow.log_params({"seeds": str(list(record.suite.seeds)), "primary": record.suite.primary})
        mlflow.log_params({f"metric.{spec.name}": spec.key[:16] for spec in record.metrics})
        mlflow.log_metrics({"edited": record.edited, "measured": record.measured, "seconds": record.seconds})
        for benchmark in record.benchmarks:
            data = _dataset(run, benchmark.name)
            mlflow.log_input(data, context="evaluation", tags={"fingerprint": benchmark.fingerprint})
            for arm in run.table.arms(benchmark.name):
                _log_child(
                    run,
                    benchmark.name,
                    arm,
                    [one for one in means if one.benchmark == benchmark.name and one.arm == arm],
                    data,
                )
        for name in ARTIFACTS:
            if (run.folder / name).is_file():
                mlflow.log_artifact(str(run.folder / name))
        mlflow.flush_artifact_async_logging()
        return str(parent.info.run_id)


def _log_child(run: Run, benchmark: str, arm: str, means: Sequence[Mean], data: Any) -> None:
    """One benchmark and set; a set of the suite is registered, and the gate's candidate becomes the challenger."""
    import mlflow
    from mlflow import MlflowClient

    record = run.record
    facts = next((one for one in record.sets if one.name == arm), None)
    with mlflow.start_run(run_name=f"{benchmark}-{arm}-{record.finished[:10]}", nested=True):
        mlflow.set_tags({"suite": record.suite.name, "benchmark": benchmark, "expert_set": arm, "schema_version": "1"})
        mlflow.log_param("benchmark", benchmark)
        if facts is not None:
            mlflow.log_params(
                {key: value[:500] for key, value in facts.facts.items()} | {"identity": facts.identity_sha256}
            )
        model_id = None
        if facts is not None and is_own_set(run, facts):
            version = register_set(facts.facts)
            client = MlflowClient()
            model_id = client.get_model_version(facts.facts["set"], version).model_id
            gate = record.suite.gate
            candidate = (
                gate.set if gate is not None and gate.set else next((one.b for one in record.suite.compare), None)
            )
            if arm == candidate:
                client.set_registered_model_alias(facts.facts["set"], CHALLENGER, version)
        numbers = list(_numbers(means).items())
        for first in range(0, len(numbers), _AT_ONCE):
            mlflow.log_metrics(dict(numbers[first : first + _AT_ONCE]), dataset=data, model_id=model_id)


def is_own_set(run: Run, facts: SetFacts) -> bool:
    """Whether it is a whole expert set of the suite, routed by itself: that is what can be deployed."""
    own = any(arm.name == facts.name for arm in run.record.suite.sets)
    return own and facts.facts.get("kind") == "set" and facts.facts.get("expert") == "auto"


def _numbers(means: Sequence[Mean]) -> dict[str, float]:
    """MLflow's metrics: `BENCHMARK/NUMBER/mean`, `/ci_low`, `/ci_high`, `/n`, `/errors`, and by kind."""
    found: dict[str, float] = {}
    for one in means:
        stem = f"{one.benchmark}/{one.output}" + ("" if one.kind == "all" else f"/by_type/{one.kind}")
        found |= {f"{stem}/n": float(one.n), f"{stem}/errors": float(one.errors)}
        if one.mean is not None:
            found[f"{stem}/mean"] = one.mean
        if one.interval is not None:
            found |= {f"{stem}/ci_low": one.interval.low, f"{stem}/ci_high": one.interval.high}
    return found


def _dataset(run: Run, name: str) -> Any:
    """The benchmark's index under our own digest: MLflow's leaves out pictures, and all rows after 10,000."""
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
    if verdict is not None:
        tags |= {"gate": verdict.outcome, "verdict": verdict.line[:5000]}
    return tags
