"""The folder of a run: `run.json` (what was evaluated, and how), the two tables, and the results.

`run.json` is written last, so a folder that has it is complete. Images stay in the store, which several runs share.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from careedit.errors import InputError
from careedit.files import json_digest, write_atomic
from careedit.record import Record
from careedit_eval.pipeline.evaluate import Evaluation
from careedit_eval.records import MetricSpec, Output
from careedit_eval.results import Table
from careedit_eval.suite import Suite
from careedit_eval.timing import TIMING_FILE, TimingRecord

RUN_FILE = "run.json"
PACKAGES = (
    "careedit",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "open_clip_torch",
    "numpy",
    "scipy",
    "ray",
    "mlflow",
)
"""The packages whose versions a run records."""

Trigger = Literal["manual", "nightly", "pr"]


class BenchmarkFacts(Record):
    """The facts of one benchmark in a run."""

    name: str
    """The name of the benchmark."""
    revision: str
    """The revision of the benchmark's data."""
    fingerprint: str
    """The sha256 over ids and contents of its rows."""
    rows: int
    """The number of rows that are measured."""
    unusable: Mapping[str, str] = Field(default_factory=dict)
    """Rows that cannot be edited or lack an image that they name: the reason by id."""


class SetFacts(Record):
    """The facts of one set in a run."""

    name: str
    """The name of the set in the tables."""
    identity_sha256: str
    """The hash of everything that its edits depend on, apart from sample and seed."""
    facts: Mapping[str, str]
    """Name, hash and base of the set, or what a service reported."""


class Narrowed(Record):
    """The part of its suite that a run covers."""

    limit: int | None = None
    """The number of samples of each benchmark from `--limit`; None means all."""
    sets: tuple[str, ...] = ()
    """The sets from `--set`; empty means all."""

    @property
    def reason(self) -> str | None:
        """Why the run covers only a part of the suite; None if it covers all."""
        options = [f"--limit {self.limit}"] if self.limit is not None else []
        options += [f"--set {name}" for name in self.sets]
        return f"it was made with {' '.join(options)}" if options else None


WHOLE = Narrowed()
"""The record of a run of the whole suite."""


class RunRecord(Record):
    """The content of `run.json`: what was evaluated, and how."""

    schema_version: Literal[1] = 1
    """The version of this file's format."""
    id: str
    """The id of the run, which is the name of its folder."""
    suite: Suite
    """The suite as it was run."""
    suite_folder: str
    """The folder of the suite's file, relative to the run's folder. Its baseline is looked up there."""
    trigger: Trigger
    """What started the run: a user, the nightly job, or a pull request."""
    finished: str
    """The end of the run in UTC, ISO 8601."""
    benchmarks: tuple[BenchmarkFacts, ...]
    """The benchmarks that were edited."""
    sets: tuple[SetFacts, ...]
    """The sets and rows that edited."""
    metrics: tuple[MetricSpec, ...]
    """The identities of the metrics. Two runs can be compared only if these are equal."""
    missing: Mapping[str, str] = Field(default_factory=dict)
    """Rows that could not be measured, with the reasons."""
    store: str
    """The folder of the store, relative to the run's folder."""
    edited: int
    """The number of edits made in this run; the others were in the store."""
    measured: int
    """The number of scores made in this run."""
    seconds: float
    """The wall-clock seconds of this run."""
    narrowed: Narrowed | None = None
    """The part of the suite that was run; None in older runs, which do not record it."""
    environment: Mapping[str, str]
    """Versions of libraries, commit, and kind of machine."""

    @property
    def outputs(self) -> dict[str, Output]:
        """Every output by its name."""
        return {one.name: one for spec in self.metrics for one in spec.outputs}

    @property
    def metric_keys(self) -> dict[str, str]:
        """The key of the metric behind every number."""
        return {one.name: spec.key for spec in self.metrics for one in spec.outputs}


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    folder: Path
    """The folder of the run."""
    record: RunRecord
    """The content of the run's `run.json`."""
    joined: Table | None = None
    """The table of two runs that are compared (`careedit_eval.joined`); None: the table is read from the folder."""

    @cached_property
    def table(self) -> Table:
        """The table of results."""
        return self.joined if self.joined is not None else Table.read(self.folder)

    @cached_property
    def timing(self) -> TimingRecord | None:
        """The timing of compared sets; None if the run was not timed. Raises `InputError`."""
        file = self.folder / TIMING_FILE
        if not file.is_file():
            return None
        try:
            data = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read ({error}); run the suite again.") from error
        return TimingRecord(**data)

    @property
    def store(self) -> Path:
        """The store with the images."""
        return (self.folder / self.record.store).resolve()


def save_run(
    folder: Path, found: Evaluation, *, store: Path, suite_folder: Path, trigger: Trigger, seconds: float,
    narrowed: Narrowed = WHOLE,
) -> Run:  # fmt: skip
    """Write the folder of a run. Raises `InputError` if it cannot be written."""
    plan = found.plan
    record = RunRecord(
        id=folder.name,
        suite=plan.suite,
        suite_folder=os.path.relpath(suite_folder, folder),
        trigger=trigger,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        benchmarks=tuple(
            BenchmarkFacts(
                name=one.name,
                revision=one.revision,
                fingerprint=one.fingerprint,
                rows=len(one.scored),
                unusable={sample.id: sample.trouble for sample in one.samples if sample.trouble is not None},
            )
            for one in plan.benchmarks
        ),
        sets=tuple(
            SetFacts(name=one.name, identity_sha256=json_digest(dict(one.identity)), facts=one.facts)
            for one in plan.arms
        ),
        metrics=plan.specs,
        missing=plan.missing,
        store=os.path.relpath(store, folder),
        edited=found.edited,
        measured=found.measured,
        seconds=round(seconds, 3),
        narrowed=narrowed,
        environment=environment(),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found.table.write(folder)
        if found.timing is not None:
            write_atomic(folder / TIMING_FILE, f"{found.timing.model_dump_json(indent=1)}\n".encode())
        write_atomic(folder / RUN_FILE, f"{record.model_dump_json(indent=1)}\n".encode())
    except OSError as error:
        raise InputError(f"The run's folder {folder} cannot be written ({error.strerror}); give another.") from error
    return Run(folder, record)


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Read a finished run. Raises `InputError`."""
    place = Path(folder)
    try:
        data = json.loads((place / RUN_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{place} is not a finished run ({error}); give a folder that `careedit eval run` wrote."
        ) from error
    if not isinstance(data, dict):
        raise InputError(f"{place / RUN_FILE} is not a JSON object; give a folder that `careedit eval run` wrote.")
    if data.get("schema_version") != 1:
        raise InputError(
            f"{place} has format {data.get('schema_version')}, this careedit reads 1; use the other version."
        )
    return Run(place, RunRecord(**data))


def environment() -> dict[str, str]:
    """Versions, commit and kind of machine, without anything that identifies the machine."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | git_state()


def git_state() -> dict[str, str]:
    """The commit of the code, and whether the code has changed since; empty outside a checkout of careedit.

    Only a repository that tracks this file counts, because the environment may be inside another project's repository.
    """
    here = Path(__file__).parent
    commands = (
        ["ls-files", "--error-unmatch", Path(__file__).name],
        ["rev-parse", "HEAD"],
        ["status", "--porcelain", "--untracked-files=no"],
    )
    try:
        _, sha, status = (
            subprocess.run(
                ["git", "-C", str(here), *command],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=True,
                timeout=20,
            ).stdout
            for command in commands
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git_sha": sha.strip(), "git_dirty": "true" if status.strip() else "false"}


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document atomically. A NaN raises ValueError."""
    write_atomic(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
