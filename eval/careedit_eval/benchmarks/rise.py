"""RISEBench (arXiv 2504.02826): edits that need temporal, causal, spatial or logical reasoning, in one JSON listing.

A row has an image, the instruction, and what the right result is: a text (`reference`, `reference_txt`) or an image
(`reference_img`), which only the judge sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from careedit.tabular import is_missing
from careedit_eval.benchmarks.base import UNKNOWN, Source, TableBenchmark, group_of, taken
from careedit_eval.benchmarks.listings import Entry, entries_of, find_listing
from careedit_eval.records import Sample

LISTINGS = ("data_total.json", "datav2_total_w_subtask.json")
"""The names of the published listings: 64 rows in the repository, 360 on the hub."""
KINDS = ("temporal_reasoning", "causal_reasoning", "spatial_reasoning", "logical_reasoning")
"""The kinds of edit: the values of `category`."""
FLAGS = ("consistency_free", "reasoning_img", "reasoning_wo_ins")
"""Flags that choose the questions of the judge. A flag that a row does not have, or that is false there, is false."""


class RiseConfig(Source):
    """Options of RISEBench."""

    images: str | None = None
    """The folder that the names of images are relative to; None means the folder of the listing."""
    kinds: Literal["category", "subtask"] = "category"
    """By what results are grouped: the four categories, or their subtasks."""


class Rise(TableBenchmark):
    """The rows of the listing. `path` is the JSON file, or the folder that has it under its published name."""

    def __init__(self, config: RiseConfig) -> None:
        super().__init__("rise" if config.kinds == "category" else "rise-by-subtask", config)
        self.config = config

    def _read(self) -> Iterator[Sample]:
        entries = entries_of(find_listing(self.path, LISTINGS), self.config.images)
        named = ((entry.text("index") or f"row-{entry.key}", entry) for entry in entries)
        yield from (self._sample(name, entry) for name, entry in taken(named, self.config.limit))

    def _sample(self, name: str, entry: Entry) -> Sample:
        source, target = entry.picture("image"), entry.picture_or_none("reference_img")
        in_words = entry.text("reference_txt")
        reference = in_words or entry.text("reference")
        problem = entry.lack("index", "category", "instruction")
        if problem is None and not reference and target is None:
            problem = f"{entry.place}: it has no reference, reference_txt or reference_img."
        return Sample(
            id=name,
            kind=entry.text(self.config.kinds) or UNKNOWN,
            instruction=entry.text("instruction"),
            source=source,
            target=target,
            texts={"reference": reference} if reference else {},
            group=group_of(source, name),
            extras={
                "category": entry.text("category"),
                "answer_in_words": bool(in_words),
                **{flag: _is_set(entry, flag) for flag in FLAGS},
            },
            problem=problem,
        )


def _is_set(entry: Entry, flag: str) -> bool:
    value = entry.cells.get(flag)
    return not is_missing(value) and bool(value)
