"""What the viewer shows, as JSON data: the runs, the columns of one run, one sample, and means over time."""

from __future__ import annotations

import json
import posixpath
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from careedit.errors import CareEditError, InputError
from careedit_eval.gate import candidate_of
from careedit_eval.pictures import read_bytes
from careedit_eval.report.analysis import COMPARISON_FILE, GATE_FILE
from careedit_eval.report.routing import first_choice
from careedit_eval.results import EditLine, ScoreLine, Table
from careedit_eval.runs import RUN_FILE, Run
from careedit_eval.viewer.folder import ViewedRun

NIGHTS = 100
"""The number of runs, the latest ones, that are shown over time."""


class Library:
    """The runs of a viewer: those that were named, and those in the folders next to them."""

    def __init__(self, named: Sequence[ViewedRun]) -> None:
        self.named = [run.id for run in named]
        self._lock = threading.Lock()
        self._opened = {run.id: run for run in named}
        self._addresses = {run.id: run.address for run in named}
        self._history: list[dict[str, Any]] | None = None
        for run in named:
            for address in _siblings(run):
                self._addresses.setdefault(posixpath.basename(address), address)

    def run(self, name: str) -> ViewedRun:
        """A run by its id. Raises `InputError` for another id, or if the run cannot be read."""
        with self._lock:
            if name not in self._addresses:
                raise InputError(f"The viewer has no run {name!r}; name its folder in the command.")
            if name not in self._opened:
                self._opened[name] = ViewedRun(self._addresses[name])
            return self._opened[name]

    def runs(self) -> dict[str, Any]:
        """The ids of all runs, oldest first, and of those that were named."""
        return {"named": self.named, "runs": sorted(self._addresses)}

    def history(self) -> list[dict[str, Any]]:
        """The means of the latest runs of the first named run's suite, oldest first, from their files."""
        with self._lock:
            if self._history is None:
                suite = self._opened[self.named[0]].run.record.suite.name
                latest = sorted(self._addresses)[-NIGHTS:]
                nights = (_night(self._addresses[name], suite) for name in latest)
                self._history = [night for night in nights if night is not None]
            return self._history


def run_document(viewed: ViewedRun) -> dict[str, Any]:
    """A run as columns: samples, and for every set its experts, errors and numbers in their order."""
    run = viewed.run
    record, table = run.record, run.table
    keys = [
        (benchmark, *pair)
        for benchmark in table.benchmarks
        for pair in dict.fromkeys(pair for arm in table.arms(benchmark) for pair in table.edits_of(benchmark, arm))
    ]
    arms = list(dict.fromkeys(arm for benchmark in table.benchmarks for arm in table.arms(benchmark)))
    errors: dict[str, int] = {}
    return {
        "id": record.id,
        "suite": record.suite.name,
        "finished": record.finished,
        "narrowed": record.narrowed.reason if record.narrowed is not None else None,
        "commit": record.environment.get("git_sha", "")[:12],
        "primary": record.suite.primary,
        "pair": _pair(run, arms),
        "outputs": [
            {**output.model_dump(), "metric": spec.name, "protocol": spec.protocol, "key": spec.key}
            for spec in record.metrics
            if spec.reference != "rival"
            for output in spec.outputs
        ],
        "benchmarks": {facts.name: facts.fingerprint for facts in record.benchmarks},
        "sets": {facts.name: dict(facts.facts) for facts in record.sets},
        "samples": [_sample(table, *key) for key in keys],
        "arms": {arm: _columns(run, arm, keys, errors) for arm in arms},
        "errors": list(errors),
    }


def sample_document(viewed: ViewedRun, benchmark: str, sample_id: str, seed: int) -> dict[str, Any]:
    """One sample with everything that is known of it. Raises `InputError` if the run does not have it."""
    table = viewed.run.table
    lines = {
        arm: line
        for arm in table.arms(benchmark)
        if (line := table.edits_of(benchmark, arm).get((sample_id, seed))) is not None
    }
    if not lines:
        raise InputError(f"The run {viewed.id} has no sample {sample_id!r} with the seed {seed}.")
    found: dict[str, Any] = {"pictures": [], "warnings": viewed.warnings()}
    try:
        sample = viewed.sample(benchmark, sample_id)
    except CareEditError as error:
        if str(error) not in found["warnings"]:
            found["warnings"].append(str(error))
    else:
        pictures = [role for role in ("source", "target", "mask") if getattr(sample, role) is not None]
        found["pictures"] = [*pictures, *(f"reference-{number}" for number in range(len(sample.references)))]
        found |= {"texts": dict(sample.texts), "extras": dict(sample.extras), "turn": sample.turn}
        found |= {"previous": sample.previous, "trouble": sample.trouble, "mask_given": sample.mask_given}
    scores: dict[str, list[ScoreLine]] = {}
    for score in table.scores:
        if (score.benchmark, score.sample_id, score.seed) == (benchmark, sample_id, seed):
            scores.setdefault(score.arm, []).append(score)
    keys = {arm: line.edit_key for arm, line in lines.items()}
    found["arms"] = {arm: _edit(viewed, line, scores.get(arm, []), keys) for arm, line in lines.items()}
    return found


def _siblings(run: ViewedRun) -> list[str]:
    try:
        return run.siblings()
    except CareEditError:  # the run's own files can be read even where its folder cannot be listed
        return []


def _pair(run: Run, arms: Sequence[str]) -> list[str]:
    """The sets that are shown first: those of the gate, or the first two."""
    suite = run.record.suite
    candidate = candidate_of(suite)
    others = [suite.compare[0].a] if suite.compare else []
    others += [arm for arm in arms if arm != candidate]
    return [others[0] if others else candidate, candidate]


def _sample(table: Table, benchmark: str, sample_id: str, seed: int) -> dict[str, Any]:
    line = next(
        line for arm in table.arms(benchmark) if (line := table.edits_of(benchmark, arm).get((sample_id, seed)))
    )
    about = {"kind": line.kind, "instruction": line.instruction, "group": line.group}
    return {"benchmark": benchmark, "id": sample_id, "seed": seed, **about}


def _columns(run: Run, arm: str, keys: Sequence[tuple[str, str, int]], errors: dict[str, int]) -> dict[str, Any]:
    """The columns of one set; an error is its place in `errors`, which is filled."""
    table = run.table
    edits = [table.edits_of(benchmark, arm).get((sample_id, seed)) for benchmark, sample_id, seed in keys]
    values: dict[str, list[float | None]] = {}
    failed: list[list[int]] = [
        [errors.setdefault(edit.error, len(errors))] if edit is not None and edit.error is not None else []
        for edit in edits
    ]
    for spec in run.record.metrics:
        if spec.reference == "rival":
            continue
        for output in spec.outputs:
            column = [
                table.column(benchmark, arm, output.name).get((sample_id, seed)) for benchmark, sample_id, seed in keys
            ]
            values[output.name] = [None if line is None else line.value for line in column]
            for place, line in enumerate(column):
                if line is not None and line.error is not None and not line.error.startswith("No edit: "):
                    failed[place].append(errors.setdefault(f"{output.name}: {line.error}", len(errors)))
    return {
        "picture": [int(edit is not None and edit.picture is not None) for edit in edits],
        "expert": ["" if edit is None else first_choice(edit) for edit in edits],
        "failed": failed,
        "values": values,
    }


def _edit(viewed: ViewedRun, line: EditLine, scores: Sequence[ScoreLine], keys: Mapping[str, str]) -> dict[str, Any]:
    """One edit of a sample; `keys` are the edit keys of all sets, among which judges compared."""
    trace, missing, answers = None, None, []
    try:
        trace, answers = viewed.trace(line.edit_key), viewed.answers(line.edit_key, keys)
    except CareEditError as error:
        missing = str(error)
    return {
        "error": line.error,
        "notes": line.notes,
        "seconds": line.seconds,
        "nfe": line.nfe,
        "experts": line.experts,
        "alignment": line.alignment,
        "edit_key": line.edit_key,
        "trace": trace,
        "trace_missing": missing,
        "answers": answers,
        "scores": [
            {"output": one.output, "rival": one.rival, "value": one.value, "error": one.error, "notes": one.notes}
            for one in scores
        ],
    }


def _night(address: str, suite: str) -> dict[str, Any] | None:
    """One run over time, from its files; None if it is of another suite or cannot be read."""
    try:
        record = json.loads(read_bytes(f"{address}/{RUN_FILE}"))
        if record["suite"]["name"] != suite:
            return None
        comparison = json.loads(read_bytes(f"{address}/{COMPARISON_FILE}"))
        gate = json.loads(read_bytes(f"{address}/{GATE_FILE}")) if record["suite"].get("gate") else None
        means = [one for one in comparison["means"] if one["kind"] == "all" and one["mean"] is not None]
        return {
            "id": record["id"],
            "finished": record["finished"],
            "commit": record["environment"].get("git_sha", "")[:12],
            "outcome": None if gate is None else gate["outcome"],
            "line": None if gate is None else gate["line"],
            "benchmarks": {one["name"]: one["fingerprint"] for one in record["benchmarks"]},
            "sets": {one["name"]: one["identity_sha256"] for one in record["sets"]},
            "means": [_mean(one) for one in means],
        }
    except (CareEditError, ValueError, KeyError, TypeError):  # an unfinished run, or one of another version
        return None


def _mean(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one.get(name) for name in ("benchmark", "arm", "output", "mean", "macro", "interval", "n")}
