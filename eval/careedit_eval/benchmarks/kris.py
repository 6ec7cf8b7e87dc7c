"""KRIS-Bench (arXiv 2505.16707): edits that need knowledge, in a folder per category with an `annotation.json`.

An entry has an image or several (`ori_img`), the instruction (`ins_en`), perhaps the right result (`gt_img`), and an explanation
of it (`explain_en`), which only the judge sees. The first image is the source, others are references. In temporal prediction
the images are frames of four; the missing one is asked for.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Literal

from careedit.tabular import is_missing
from careedit_eval.benchmarks.base import UNKNOWN, Source, TableBenchmark, group_of, taken
from careedit_eval.benchmarks.listings import Entry, entries_of, files_named
from careedit_eval.errors import BenchmarkError
from careedit_eval.pictures import PictureRef
from careedit_eval.records import Sample, Scalar

LISTING = "annotation.json"
"""The file of each category."""
DIMENSIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "attribute perception": (
        "factual",
        ("count_change", "color_change", "size_adjustment", "part_completion", "anomaly_correction"),
    ),
    "spatial perception": ("factual", ("position_movement", "viewpoint_change")),
    "temporal prediction": ("factual", ("temporal_prediction",)),
    "social science": ("conceptual", ("practical_knowledge", "humanities")),
    "natural science": ("conceptual", ("biology", "chemistry", "geography", "mathematics", "medicine", "physics")),
    "logical reasoning": ("procedural", ("abstract_reasoning", "rule-based_reasoning")),
    "instruction decomposition": ("procedural", ("multi-instruction_execution", "multi-element_composition")),
}
"""The seven dimensions of the paper, each with its type of knowledge and its categories."""
GROUPS = {category: (dimension, kind) for dimension, (kind, names) in DIMENSIONS.items() for category in names}
NEEDS_KNOWLEDGE = ("social science", "natural science", "logical reasoning")
"""The dimensions whose edits also get a mark for the plausibility of their knowledge."""
FRAMES = 4
"""The number of frames of a sequence in temporal prediction."""


class KrisConfig(Source):
    """Options of KRIS-Bench."""

    kinds: Literal["category", "dimension", "knowledge"] = "category"
    """By what results are grouped: the category, the dimension of the paper, or the type of knowledge."""


class Kris(TableBenchmark):
    """The rows of all categories in a folder."""

    def __init__(self, config: KrisConfig) -> None:
        super().__init__("kris" if config.kinds == "category" else f"kris-by-{config.kinds}", config)
        self.config = config

    def _read(self) -> Iterator[Sample]:
        files = files_named(self.path, f"*/{LISTING}")
        if not files:
            raise BenchmarkError(f"{self.path!r} has no folders with {LISTING}; give the folder KRIS_Bench.")
        rows = ((f"{category}-{entry.key}", (category, entry)) for category, entry in _entries(files))
        yield from (self._sample(name, *row) for name, row in taken(rows, self.config.limit))

    def _sample(self, name: str, category: str, entry: Entry) -> Sample:
        source, *references = entry.pictures("ori_img") or (PictureRef.gone(f"{entry.place}: ori_img holds no image."),)
        dimension, knowledge = GROUPS.get(category, (UNKNOWN, UNKNOWN))
        asked = "ins_en" if "ins_en" in entry.cells else "instruction"
        explained = entry.text("explain_en") or entry.text("explain")
        extras: dict[str, Scalar] = {
            "category": category,
            "dimension": dimension,
            "knowledge": knowledge,
            "needs_knowledge": dimension in NEEDS_KNOWLEDGE,
        }
        problem = entry.lack(asked)
        if category == "temporal_prediction":
            frame = _missing_frame(entry)
            if frame is not None:
                extras["frame"] = frame
            problem = problem or (
                None if frame else f"{entry.place}: ori_img does not name {FRAMES - 1} frames of {FRAMES}."
            )
        return Sample(
            id=name,
            kind=str(extras[self.config.kinds]),
            instruction=entry.text(asked),
            source=source,
            target=entry.picture_or_none("gt_img"),
            references=tuple(references),
            texts={"explanation": explained} if explained else {},
            group=group_of(source, name),
            extras=extras,
            problem=problem,
        )


def _entries(files: list[str]) -> Iterator[tuple[str, Entry]]:
    for file in files:
        category = posixpath.basename(posixpath.dirname(file))
        yield from ((category, entry) for entry in entries_of(file, where=f"{category}/{LISTING}"))


def _missing_frame(entry: Entry) -> int | None:
    """The number of the frame that is asked for: the one that "7-1.jpg", "7-3.jpg", "7-4.jpg" lack; None if that is not one."""
    names = entry.cells.get("ori_img")
    found = [re.search(r"-(\d+)\.\w+$", str(name)) for name in names] if isinstance(names, list) else []
    lacking = set(range(1, FRAMES + 1)) - {int(match[1]) for match in found if match is not None}
    return lacking.pop() if len(lacking) == 1 and not any(map(is_missing, found)) else None
