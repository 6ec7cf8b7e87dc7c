"""Two runs of different nights as one run with two sets, so that they are compared and judged like sets of one run.

Samples are paired by benchmark, id and seed. That is right only if both runs had the same rows and measured in the same way, so
other rows, other seeds and other identities of metrics are refused by name, or left out where only the common part is wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from careedit.errors import InputError
from careedit_eval.gate import candidate_of
from careedit_eval.pipeline.plan import rows_of
from careedit_eval.records import MetricSpec
from careedit_eval.results import EditLine, ScoreLine, Table
from careedit_eval.runs import PACKAGES, BenchmarkFacts, Run
from careedit_eval.suite import Comparison

SHOWN = 3
"""The maximum number of differences that a sentence lists."""


@dataclass(frozen=True)
class Joined:
    """Two runs as one."""

    run: Run
    """A run with the two sets, under names that hold their runs."""
    a: str
    """The name of the first run's set."""
    b: str
    """The name of the second run's set."""
    remarks: tuple[str, ...]
    """What was left out, and what else differs between the runs, as sentences."""


def join_runs(
    first: Run, second: Run, *, sets: tuple[str | None, str | None] = (None, None), common: bool = False
) -> Joined:
    """Set `sets[0]` of the first run and `sets[1]` of the second as one run with the second one's suite and gate.

    Without names, the candidate of the second run's gate is compared with the set of the same name in the first. `common`
    compares only the rows, seeds and numbers that both runs share. Raises `InputError` if they differ without it, or share
    nothing.
    """
    name_b = sets[1] or candidate_of(second.record.suite)
    there = {arm for benchmark in first.table.benchmarks for arm in first.table.arms(benchmark)}
    name_a = sets[0] or (name_b if name_b in there else candidate_of(first.record.suite))
    for run, name in ((first, name_a), (second, name_b)):
        _check_set(run, name)
    remarks: list[str] = []
    rows = dict(_common_rows(first, second, common, remarks))
    seeds = _common_seeds(first, second, common, remarks)
    metrics = _common_metrics(first, second, common, remarks)
    remarks += _other_code(first, second)
    gate = second.record.suite.gate
    if gate is not None:
        if gate.max_slowdown is not None:
            remarks.append("Time is not judged: the two sets were not timed together.")
        gate = gate.model_copy(update={"baseline": None, "set": None, "max_slowdown": None})
    a, b = _labels(first, second, name_a, name_b)
    if a == b:
        raise InputError("Both sides are the same set of the same run; give two runs, or two sets (--set-a, --set-b).")
    outputs = {one.name for spec in metrics for one in spec.outputs}
    wanted = {second.record.suite.primary, *(name.partition("/")[0] for name in (gate.margins if gate else {}))}
    if not wanted <= outputs:
        raise InputError(f"The runs do not share {min(wanted - outputs)!r}, which decides; measure both in one way.")
    table = Table(
        [*_edits(first, name_a, a, rows, seeds), *_edits(second, name_b, b, rows, seeds)],
        [*_scores(first, name_a, a, rows, seeds, outputs), *_scores(second, name_b, b, rows, seeds, outputs)],
    )
    suite = second.record.suite.model_copy(
        update={"compare": (Comparison.model_construct(a=a, b=b),), "gate": gate, "pairwise": (), "timing": None}
    )
    facts = tuple(
        one.model_copy(update={"rows": len(rows[one.name])}) for one in second.record.benchmarks if one.name in rows
    )
    described = tuple(
        one.model_copy(update={"name": label})
        for run, name, label in ((first, name_a, a), (second, name_b, b))
        for one in run.record.sets
        if one.name == name
    )
    record = second.record.model_copy(
        update={"suite": suite, "benchmarks": facts, "metrics": metrics, "sets": described, "missing": {}}
    )
    return Joined(Run(second.folder, record, table), a, b, tuple(remarks))


def _check_set(run: Run, name: str) -> None:
    for benchmark in run.table.benchmarks:
        if name not in run.table.arms(benchmark):
            known = ", ".join(run.table.arms(benchmark))
            raise InputError(f"The run {run.record.id} has no set {name!r}; it has {known}.")


def _labels(first: Run, second: Run, name_a: str, name_b: str) -> tuple[str, str]:
    """The sets with their runs; an id's first 15 characters, date and time, are enough if they differ."""
    ids = [run.record.id for run in (first, second)]
    short = [one[:15] for one in ids]
    left, right = short if short[0] != short[1] else ids
    return f"{name_a}@{left}", f"{name_b}@{right}"


def _common_rows(first: Run, second: Run, common: bool, remarks: list[str]) -> Iterator[tuple[str, Collection[str]]]:
    """The ids of the rows to compare, by benchmark."""
    left = {one.name: one for one in first.record.benchmarks}
    shared = [one for one in second.record.benchmarks if one.name in left]
    absent = [one.name for one in second.record.benchmarks if one.name not in left]
    absent += [name for name in left if all(one.name != name for one in second.record.benchmarks)]
    if not shared:
        raise InputError("The two runs have no benchmark in common, so nothing can be paired; give runs of one suite.")
    if absent and not common:
        raise InputError(f"Only one of the runs has the benchmark {absent[0]!r}; compare what both have with --common.")
    remarks += [f"The benchmark {name} is left out: only one of the runs has it." for name in absent]
    for facts in shared:
        one = left[facts.name]
        ids = [{line.sample_id for line in run.table.edits if line.benchmark == facts.name} for run in (first, second)]
        if one.fingerprint == facts.fingerprint:
            yield facts.name, ids[0] & ids[1]
            continue
        if not common:
            raise InputError(
                f"{facts.name} has other rows in {first.record.id} (fingerprint {one.fingerprint[:12]}, {one.rows} rows) than in "
                f"{second.record.id} ({facts.fingerprint[:12]}, {facts.rows} rows); compare the equal rows with --common."
            )
        contents = [_contents(run, of) for run, of in ((first, one), (second, facts))]
        equal = {name for name in ids[0] & ids[1] if contents[0][name] == contents[1][name]}
        if not equal:
            raise InputError(f"The runs have no equal row of {facts.name}, so nothing can be paired.")
        remarks.append(
            f"Only {len(equal)} rows of {facts.name} are compared, which both runs have: {len(ids[0])} and {len(ids[1])} were measured."
        )
        yield facts.name, equal


def _contents(run: Run, facts: BenchmarkFacts) -> Mapping[str, str]:
    """The hash of every row that a run measured. Raises `InputError` if the benchmark is not the run's any more."""
    limit = run.record.narrowed.limit if run.record.narrowed is not None else None
    for rows in rows_of(run.record.suite, limit):
        if rows.name == facts.name and rows.fingerprint == facts.fingerprint:
            return {sample.id: sample.content_sha256 for sample in rows.samples}
    raise InputError(
        f"The rows of {facts.name} have changed since {run.record.id}, so it is not known which of them are equal; run the suite again."
    )


def _common_seeds(first: Run, second: Run, common: bool, remarks: list[str]) -> Collection[int]:
    seeds = [set(run.record.suite.seeds) for run in (first, second)]
    shared = seeds[0] & seeds[1]
    if seeds[0] == seeds[1]:
        return shared
    said = " and ".join(", ".join(map(str, sorted(one))) for one in seeds)
    if not common or not shared:
        how = "compare the common ones with --common" if shared else "run one of them again with the other's seeds"
        raise InputError(f"The runs have other seeds, {said}; {how}.")
    remarks.append(f"Only the seeds {', '.join(map(str, sorted(shared)))} are compared; the runs have {said}.")
    return shared


def _common_metrics(first: Run, second: Run, common: bool, remarks: list[str]) -> tuple[MetricSpec, ...]:
    """The metrics that both runs have with one identity. Verdicts on pairs of sets of one run are left out."""
    left = {spec.name: spec for spec in first.record.metrics}
    kept = []
    for spec in second.record.metrics:
        if spec.reference == "rival":
            continue
        other = left.get(spec.name)
        if other is None:
            remarks.append(f"{spec.name} is left out: {first.record.id} does not have it.")
        elif other.key == spec.key:
            kept.append(spec)
        elif common:
            remarks.append(f"{spec.name} is left out: it was measured in two ways ({_ways(other, spec)}).")
        else:
            raise InputError(
                f"{spec.name} was measured in two ways ({_ways(other, spec)}), so its numbers cannot be compared; measure both runs "
                "again (`careedit eval rescore`), or leave it out with --common."
            )
    there = {spec.name for spec in second.record.metrics}
    remarks += [f"{name} is left out: {second.record.id} does not have it." for name in left if name not in there]
    return tuple(kept)


def _ways(one: MetricSpec, other: MetricSpec) -> str:
    """The parts of two identities that differ: judge, revision, version of the code, settings."""
    parts = [one.model_dump(mode="json"), other.model_dump(mode="json")]
    flat = [
        {
            **{k: v for k, v in part.items() if k != "settings"},
            **{f"settings.{k}": v for k, v in part["settings"].items()},
        }
        for part in parts
    ]
    names = [name for name in {**flat[0], **flat[1]} if flat[0].get(name) != flat[1].get(name)]
    said = [f"{name}: {str(flat[0].get(name))[:60]} / {str(flat[1].get(name))[:60]}" for name in names[:SHOWN]]
    return "; ".join(said) + (f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _other_code(first: Run, second: Run) -> list[str]:
    """Other versions of code and machine, which change edits: part of what is compared, so they are named."""
    names = ("git_sha", "git_dirty", "python", "machine", *PACKAGES)
    sides = [run.record.environment for run in (first, second)]
    found = [
        f"{name} {sides[0].get(name, 'unknown')[:12]} / {sides[1].get(name, 'unknown')[:12]}"
        for name in names
        if sides[0].get(name) != sides[1].get(name)
    ]
    return [f"The edits were made by other code, which is part of the difference: {', '.join(found)}."] if found else []


def _edits(
    run: Run, name: str, label: str, rows: Mapping[str, Collection[str]], seeds: Collection[int]
) -> Iterator[EditLine]:
    for line in run.table.edits:
        if line.arm == name and line.sample_id in rows.get(line.benchmark, ()) and line.seed in seeds:
            # Each run has its own store.
            yield replace(line, arm=label, picture=None if line.picture is None else str(run.store / line.picture))


def _scores(
    run: Run,
    name: str,
    label: str,
    rows: Mapping[str, Collection[str]],
    seeds: Collection[int],
    outputs: Collection[str],
) -> Iterator[ScoreLine]:
    for line in run.table.scores:
        wanted = line.arm == name and line.rival is None and line.output in outputs
        if wanted and line.sample_id in rows.get(line.benchmark, ()) and line.seed in seeds:
            yield replace(line, arm=label)
