"""A folder that `careedit scenes draw` wrote, as a benchmark of `careedit eval`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from careedit_eval.benchmarks.base import group_of
from careedit_eval.benchmarks.shards import file_ref
from careedit_eval.records import Sample
from careedit_tiny.world.store import read_samples


def scenes(folder: Path) -> Iterator[Sample]:
    """The samples of the folder; some kinds do not exist in HumanEdit."""
    for stored in read_samples(folder):
        drawn = stored.sample
        pictures = {role: file_ref(str(folder), name, role, drawn.id) for role, name in stored.files.items()}
        yield Sample(
            id=drawn.id,
            kind=stored.group,
            instruction=drawn.instruction,
            source=pictures["source"],
            target=pictures.get("target"),
            mask=pictures.get("mask"),
            mask_given="mask" in pictures,
            references=(pictures["reference"],) if "reference" in pictures else (),
            group=group_of(pictures["source"], drawn.id),
            extras={"scene": json.dumps(drawn.to_dict(), sort_keys=True), "operation": drawn.operation},
        )
