"""The items of the two stages, and the content keys by which they are found again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from careedit.files import json_digest
from careedit_eval.errors import BenchmarkError
from careedit_eval.records import EditRow, Sample
from careedit_eval.suite import Arm

KEY_VERSION = 1
"""The version of the keys. Raise it with a change that makes other edits from the same settings."""


@dataclass(frozen=True)
class EditTask:
    """Samples that one arm edits in sequence with one seed: the turns of a session, or a single sample."""

    arm: Arm
    """The arm that edits the samples."""
    samples: tuple[Sample, ...]
    """The samples. Each except the first gets its source from an earlier one."""
    keys: tuple[str, ...]
    """The edit keys of the samples, in their order."""
    seed: int
    """The seed of the noise."""
    benchmark: str
    """The benchmark that the samples are from."""


@dataclass(frozen=True)
class ScoreTask:
    """One edit, and the metrics that have not measured it yet."""

    sample: Sample
    """The sample that was edited."""
    edit: EditRow
    """The edit that is measured."""
    picture: str
    """The path of the edited image."""
    metrics: tuple[int, ...]
    """The indices of the metrics in the plan."""
    rival: str | None = None
    """The key of the edit that it is compared with; None for metrics of a single edit."""
    rival_picture: str | None = None
    """The path of the image of that edit."""


def chains_of(samples: Sequence[Sample]) -> Iterator[tuple[Sample, ...]]:
    """Samples in groups, in which each turn follows the turn that makes its source.

    Raises `BenchmarkError` if a turn names a previous one that does not come before it.
    """
    chains: dict[str, list[Sample]] = {}
    begun_by: dict[str, str] = {}
    for sample in samples:
        first = sample.id if sample.previous is None else begun_by.get(sample.previous)
        if first is None:
            raise BenchmarkError(
                f"Sample {sample.id!r} goes on from {sample.previous!r}, which does not stand before it; order the turns."
            )
        begun_by[sample.id] = first
        chains.setdefault(first, []).append(sample)
    yield from (tuple(chain) for chain in chains.values())


def edit_keys(identity: Mapping[str, Any], chain: Sequence[Sample], seed: int) -> tuple[str, ...]:
    """The content keys of the edits of a chain: who edits, what it sees, the noise, and the edit that it continues."""
    made: dict[str, str] = {}
    for sample in chain:
        content = {
            "version": KEY_VERSION,
            "editor": dict(identity),
            "sample": sample.id,
            "input": sample.input_sha256,
            "previous": None if sample.previous is None else made[sample.previous],
            "seed": seed,
        }
        if identity.get("kind") == "truth":
            content["target"] = None if sample.target is None else sample.target.sha256
        made[sample.id] = json_digest(content)
    return tuple(made[sample.id] for sample in chain)
