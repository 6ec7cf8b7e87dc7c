"""HumanEdit (arXiv 2412.04280): 5,751 edits by people with DALL-E 2, six kinds, and a CORE subset of 400.

Rows are read from the parquet columns of the public data set. Its protocol is only published as "as MagicBrush". Metrics use
`OUTPUT_DESCRIPTION` as the caption, because the LLaMA captions are paragraphs that CLIP would truncate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from careedit_eval.benchmarks.base import UNKNOWN, Source, TableBenchmark, distinct_ids, group_of, taken
from careedit_eval.benchmarks.shards import Line, Shards
from careedit_eval.records import Sample, Scalar

HUB = "hf://BryanW/HumanEdit"
"""The address of the published data set."""
REVISION = "dbc60b9ba3c17adf59e1effd8a9d92bdf2f14041"
"""The commit of BryanW/HumanEdit that is read by default."""
KINDS = ("Add", "Remove", "Replace", "Action", "Counting", "Relation")
"""The kinds of edit: the values of the column `EDITING_TYPE`."""
COUNTS: Mapping[str, int] = {
    "Add": 801,
    "Remove": 1813,
    "Replace": 1370,
    "Action": 659,
    "Counting": 698,
    "Relation": 410,
}
"""The number of rows per kind in the full set."""
CORE_COUNTS: Mapping[str, int] = {"Add": 30, "Remove": 188, "Replace": 97, "Action": 37, "Counting": 20, "Relation": 28}
"""The number of rows per kind in the CORE subset."""
WORDS = (
    "IMAGE_ID",
    "EDITING_TYPE",
    "CORE",
    "MASK",
    "EDITING_INSTRUCTION",
    "OUTPUT_DESCRIPTION",
    "INPUT_CAPTION_BY_LLAMA",
    "OUTPUT_CAPTION_BY_LLAMA",
)
PICTURES = ("INPUT_IMG", "MASK_IMG", "OUTPUT_IMG")


class HumanEditConfig(Source):
    """Options of HumanEdit."""

    path: str = Field(default=HUB, min_length=1)
    """The place of the data, as in `Source.path`; by default the data set on the hub."""
    subset: Literal["full", "core"] = "full"
    """Which rows are used: all rows, or those with CORE = 1."""
    masks: Literal["none", "needed", "all"] = "none"
    """The rows whose masks the editor sees: none, those with MASK = 1 (which need one), or all."""
    align: Literal["canvas", "native"] = "canvas"
    """Whether sources are placed on the square canvas of their targets, or keep their native size, as in older papers."""


class HumanEdit(TableBenchmark):
    """The public data set. Its masks are read by their transparency: its own converter also marks black pixels."""

    def __init__(self, config: HumanEditConfig, *, name: str = "humanedit") -> None:
        super().__init__(f"{name}-{config.subset}", config, REVISION)
        self.config = config

    def _read(self) -> Iterator[Sample]:
        lines = list(Shards(self.path).lines(WORDS, PICTURES))
        # An image may have several edits. Ids are made over all rows, so that a row has the same id in CORE.
        asked = [
            (
                line.text("IMAGE_ID") or line.place.name,
                f"{line.text('EDITING_TYPE')}: {line.text('EDITING_INSTRUCTION')}",
            )
            for line in lines
        ]
        named = list(zip(distinct_ids(asked), lines, strict=True))
        if self.config.subset == "core":
            named = [(name, line) for name, line in named if line.cells["CORE"] == 1]
        yield from (self._sample(name, line) for name, line in taken(named, self.config.limit))

    def _sample(self, name: str, line: Line) -> Sample:
        source, needs_mask = line.picture("INPUT_IMG"), line.cells["MASK"] == 1
        captions = {
            "target_caption": "OUTPUT_DESCRIPTION",
            "source_caption_long": "INPUT_CAPTION_BY_LLAMA",
            "target_caption_long": "OUTPUT_CAPTION_BY_LLAMA",
        }
        canvas = self.config.align == "canvas"
        return Sample(
            id=name,
            kind=line.text("EDITING_TYPE") or UNKNOWN,
            instruction=line.text("EDITING_INSTRUCTION"),
            source=source,
            target=line.picture("OUTPUT_IMG"),
            # The mask belongs to the target's canvas; with a native source it would mark another place.
            mask=line.picture_or_none("MASK_IMG") if canvas else None,
            mask_given=canvas and (self.config.masks == "all" or (self.config.masks == "needed" and needs_mask)),
            texts={text: line.text(column) for text, column in captions.items() if line.text(column)},
            group=group_of(source, name),
            align="canvas" if canvas else "none",
            extras={"core": line.cells["CORE"] == 1, "mask_needed": needs_mask, **self._extras(line)},
            problem=line.lack("IMAGE_ID", "EDITING_INSTRUCTION"),
        )

    def _extras(self, line: Line) -> dict[str, Scalar]:
        return {}
