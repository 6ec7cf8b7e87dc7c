"""A baseline: the gated numbers of one set, row by row, in a file that is committed with the suite.

It never changes by itself: a baseline that followed every pass could become worse by a margin each time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Literal

from careedit.errors import InputError
from careedit.files import write_atomic
from careedit.record import Record
from careedit_eval.results import Pair, ScoreLine
from careedit_eval.runs import Run


class FrozenRow(Record):
    """The numbers of the baseline on one sample with one seed."""

    sample_id: str
    """The id of the sample."""
    seed: int
    """The seed of the noise."""
    kind: str
    """The kind of edit of the sample."""
    group: str
    """The group of the sample: rows on one source image."""
    values: Mapping[str, float | None]
    """The numbers per output; None where the baseline failed."""
    edit_failed: bool = False
    """Whether the baseline failed to edit the sample."""
    failed: tuple[str, ...] = ()
    """Numbers that failed, not only those in `values`: what also fails for the baseline is not the candidate's fault.
    Files without this field list only those in `values`."""


class FrozenBenchmark(Record):
    """The numbers of a baseline on one benchmark."""

    name: str
    """The name of the benchmark."""
    fingerprint: str
    """The fingerprint of its rows. Runs with another one cannot be compared."""
    seconds: float | None
    """The median seconds per edit; None if they are not known."""
    rows: tuple[FrozenRow, ...]
    """One row per sample and seed."""


class Baseline(Record):
    """The content of the file of a baseline."""

    schema_version: Literal[1] = 1
    """The version of this file's format."""
    suite: str
    """The name of the suite."""
    set: str
    """The name of the set that edited."""
    facts: Mapping[str, str]
    """Facts about that set: name, hash, base."""
    finished: str
    """The end of its run in UTC, ISO 8601."""
    metrics: Mapping[str, str]
    """The key of the metric behind every number. A number of another metric cannot be compared."""
    benchmarks: tuple[FrozenBenchmark, ...]
    """The benchmarks with the numbers of the set."""

    def column(self, benchmark: str, output: str) -> dict[Pair, ScoreLine]:
        """The rows of one number, as in a table of results."""
        found = next((one for one in self.benchmarks if one.name == benchmark), None)
        return {
            (row.sample_id, row.seed): ScoreLine(
                benchmark,
                self.set,
                row.sample_id,
                row.seed,
                row.kind,
                row.group,
                output,
                None,
                row.values[output],
                None if row.values[output] is not None else "The baseline failed here.",
                "",
            )
            for row in (found.rows if found is not None else ())
            if output in row.values
        }

    def write(self, path: Path) -> None:
        """Write the file, atomically."""
        write_atomic(path, f"{self.model_dump_json(indent=1)}\n".encode())


def freeze(run: Run, name: str, outputs: Iterable[str]) -> Baseline:
    """Freeze a set's numbers of a run as a baseline. Raises `InputError` if the set or number does not exist."""
    table, record, wanted = run.table, run.record, tuple(dict.fromkeys(outputs))
    unknown = [output for output in wanted if output not in record.outputs]
    if unknown or not wanted:
        problem = f"gives no {unknown[0]!r}" if unknown else "gates nothing"
        raise InputError(f"The suite {record.suite.name!r} {problem}; name numbers among {', '.join(record.outputs)}.")
    frozen = []
    for facts in record.benchmarks:
        edits = table.edits_of(facts.name, name)
        if not edits:
            raise InputError(f"The run has no set {name!r}; it has {', '.join(table.arms(facts.name))}.")
        everything = {output: table.column(facts.name, name, output) for output in record.outputs}
        columns = {output: everything[output] for output in wanted}
        rows = tuple(
            FrozenRow(
                sample_id=line.sample_id,
                seed=line.seed,
                kind=line.kind,
                group=line.group,
                values={
                    output: None if (value := column[pair].value) is None else round(value, 9)
                    for output, column in columns.items()
                    if pair in column and column[pair].applies
                },
                edit_failed=line.error is not None,
                failed=tuple(
                    output for output, column in everything.items() if pair in column and column[pair].error is not None
                ),
            )
            for pair, line in edits.items()
        )
        seconds = [line.seconds for line in edits.values() if line.seconds is not None]
        frozen.append(
            FrozenBenchmark(
                name=facts.name,
                fingerprint=facts.fingerprint,
                seconds=round(median(seconds), 6) if seconds else None,
                rows=rows,
            )
        )
    known = next((one.facts for one in record.sets if one.name == name), {})
    return Baseline(
        suite=record.suite.name,
        set=name,
        facts=known,
        finished=record.finished,
        metrics={output: record.metric_keys[output] for output in wanted},
        benchmarks=tuple(frozen),
    )


def load_baseline(path: Path) -> Baseline:
    """Read the file of a baseline. Raises `InputError`."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"The baseline {path} cannot be read ({error}); freeze one with `careedit eval baseline`."
        ) from error
    if not isinstance(data, dict):
        raise InputError(f"The baseline {path} is not a JSON object; freeze one with `careedit eval baseline`.")
    return Baseline(**data)
