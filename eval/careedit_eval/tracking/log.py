"""An evaluation as MLflow runs: one parent, and a child per benchmark and set with traces, from the content of the run's folder.

Only the folder is needed, so a run can be logged later if the server is down. It is logged once: the folder records where, and
MLflow's runs have the folder's name as a tag, so interrupted logging continues in the runs that it began.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from careedit_eval.gate import Verdict
from careedit_eval.runs import RUN_FILE, Run, write_json
from careedit_eval.tracking.content import Content, Contents, contents_of
from careedit_eval.tracking.edits import SAMPLES, traced_edits
from careedit_eval.tracking.registry import CHALLENGER, logged_model, register_set
from careedit_eval.tracking.store import experiment_of, parts, tracking
from careedit_eval.tracking.traces import send_dataset, send_traces, send_votes
from careedit_eval.votes_file import ExportedVote

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

TRACKED_FILE = "mlflow.json"
"""The name of the file that records where a run was logged."""
FINISHED, FAILED, RUNNING = "FINISHED", "FAILED", "RUNNING"
PARENT, FOLDER, SHA = "mlflow.parentRunId", "run_folder", "run_sha256"
"""Tags: the parent of a child, the run's folder, and the hash of its run.json, because a folder's name may occur twice."""
_METRICS, _OTHERS = 500, 100
"""The number of metrics, and of parameters or tags, per request; MLflow accepts 1,000 and 100."""


def log_run(
    run: Run, uri: str, verdict: Verdict | None = None, *, samples: int = SAMPLES, votes: Sequence[ExportedVote] = ()
) -> str:
    """Log a run to the MLflow at `uri`; the parent run's id. The edits of `samples` samples per benchmark become traces.

    Raises `TrackingError`; the run's folder is not changed then. Raises `InputError` for votes on what the run does not have.
    Logging that was cut off before continues: its runs are found by the folder's name and end FINISHED. More samples, or votes,
    are added to what was logged.
    """
    mark = run.folder / TRACKED_FILE
    known = json.loads(mark.read_text("utf-8")) if mark.is_file() else {}
    logged = known.get("traces", 0) if known.get("uri") == uri else 0
    if known.get("uri") == uri and logged >= samples and not votes:
        return str(known["run_id"])
    wanted, traced = contents_of(run, verdict), traced_edits(run, samples) if samples > logged else {}
    with tracking(uri):
        experiment = experiment_of(f"eval/{run.record.suite.name}")
        run_id = _log(run, wanted, experiment)
        children = {_place(child.data.tags): child for child in _children(experiment, run_id)}
        for place, traces in traced.items():
            send_traces(children[place], traces, run)
        for benchmark in run.table.benchmarks if samples > logged else ():
            send_dataset(run, benchmark, experiment)
        send_votes(children, votes, run.record.suite.seeds)
    write_json(mark, {"uri": uri, "run_id": run_id, "traces": max(samples, logged)})
    return run_id


def _log(run: Run, wanted: Contents, experiment: str) -> str:
    from mlflow import MlflowClient

    client = MlflowClient()
    tags = {**wanted.parent.tags, SHA: hashlib.sha256((run.folder / RUN_FILE).read_bytes()).hexdigest()}
    earlier = _earlier(experiment, tags)
    known = next(iter(earlier), None)
    for other in earlier[1:]:
        _close(client, experiment, other)
    if known is not None and known.info.status == FINISHED:
        return str(known.info.run_id)
    with _open(client, experiment, wanted.parent, tags, known) as parent:
        _fill(client, parent, wanted.parent, context="evaluation")
        run_id = str(parent.info.run_id)
        begun = {_place(child.data.tags): child for child in _children(experiment, run_id)}
        for child in wanted.children:
            before = begun.pop(_place(child.tags), None)
            if before is None or before.info.status != FINISHED:
                _log_child(client, experiment, child, {**child.tags, PARENT: run_id}, before)
        for path in wanted.files:
            client.log_artifact(run_id, str(path))
    return run_id


def _log_child(
    client: MlflowClient, experiment: str, child: Content, tags: Mapping[str, str], before: MlflowRun | None
) -> None:
    """Log one benchmark and set. A set of the suite is registered, and the gate's candidate becomes the challenger."""
    with _open(client, experiment, child, tags, before) as opened:
        model_id = None
        if child.facts is not None:
            facts = child.facts.facts
            version = register_set(facts)
            model_id = logged_model(facts["set"], version)
            if child.challenger:
                client.set_registered_model_alias(facts["set"], CHALLENGER, version)
        _fill(client, opened, child, model_id=model_id)


@contextmanager
def _open(
    client: MlflowClient, experiment: str, content: Content, tags: Mapping[str, str], before: MlflowRun | None
) -> Iterator[MlflowRun]:
    """The run that was begun before, or a new one with its tags from the start. It ends as FINISHED or FAILED."""
    from mlflow.tracking.context.registry import resolve_tags

    if before is None:
        opened = client.create_run(experiment, tags=resolve_tags(dict(tags)), run_name=content.name)
    else:
        opened = before
        client.update_run(before.info.run_id, status=RUNNING)
    run_id = opened.info.run_id
    try:
        if before is not None:
            _send_tags(client, run_id, tags)
        yield opened
        client.set_terminated(run_id, FINISHED)
    except BaseException:
        # A server that is down cannot take this; the next time the run is found and continued.
        with suppress(Exception):
            client.set_terminated(run_id, FAILED)
        raise


def _fill(
    client: MlflowClient,
    opened: MlflowRun,
    content: Content,
    *,
    context: str | None = None,
    model_id: str | None = None,
) -> None:
    """The parameters, inputs and metrics that the run does not have yet."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, Metric, Param

    run_id, data, inputs = opened.info.run_id, opened.data, opened.inputs
    there = {(one.dataset.name, one.dataset.digest) for one in inputs.dataset_inputs} if inputs else set()
    models = {one.model_id for one in inputs.model_inputs or ()} if inputs else set()
    given = []
    for dataset, tags in content.datasets:
        labels = {**tags, **({} if context is None else {"mlflow.data.context": context})}
        if (dataset.name, dataset.digest) not in there:
            entity = Dataset(**dataset.to_dict())
            given.append(DatasetInput(entity, [InputTag(key, value) for key, value in labels.items()]))
    used = [LoggedModelInput(model_id)] if model_id is not None and model_id not in models else []
    if given or used:
        client.log_inputs(run_id, datasets=given, models=used)
    params = [Param(key, value) for key, value in content.params.items() if key not in data.params]
    for some in parts(params, _OTHERS):
        client.log_batch(run_id, params=some)
    of = content.datasets[0][0] if context is None and content.datasets else None
    now = int(time.time() * 1000)
    metrics = [
        Metric(
            key,
            value,
            now,
            0,
            model_id=model_id,
            dataset_name=None if of is None else of.name,
            dataset_digest=None if of is None else of.digest,
            run_id=run_id,
        )
        for key, value in content.metrics.items()
        if data.metrics.get(key) != value
    ]
    for measured in parts(metrics, _METRICS):
        client.log_batch(run_id, metrics=measured)


def _send_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def _earlier(experiment: str, tags: Mapping[str, str]) -> list[MlflowRun]:
    """The parents that this folder was logged to before, the one to continue first: a finished one, else the latest."""
    runs = _search(experiment, FOLDER, tags[FOLDER])
    own = [run for run in runs if PARENT not in run.data.tags and run.data.tags.get(SHA, tags[SHA]) == tags[SHA]]
    return sorted(own, key=lambda run: (run.info.status != FINISHED, -run.info.start_time))


def _children(experiment: str, parent: str) -> list[MlflowRun]:
    """The children of a parent, finished ones last, so that these are kept of several for one place."""
    return sorted(_search(experiment, PARENT, parent), key=lambda run: run.info.status == FINISHED)


def _search(experiment: str, tag: str, value: str) -> list[MlflowRun]:
    import mlflow

    quote = '"' if "'" in value else "'"  # a folder may be named "it's"
    wanted = f"tags.`{tag}` = {quote}{value}{quote}"
    found: list[MlflowRun] = mlflow.search_runs([experiment], wanted, output_format="list")
    return found


def _close(client: MlflowClient, experiment: str, parent: MlflowRun) -> None:
    """End a parent that was left running, and its children."""
    for run in (parent, *_children(experiment, parent.info.run_id)):
        if run.info.status == RUNNING:
            client.set_terminated(run.info.run_id, FAILED)


def _place(tags: Mapping[str, str]) -> tuple[str, str]:
    """Benchmark and set, which distinguish a child from the others."""
    return tags.get("benchmark", ""), tags.get("expert_set", "")
