"""Drawn rows in HumanEdit's exact columns and six kinds; equal options draw equal rows.

`IMAGE_ID` names the drawing, so the oracle knows the right result of every row. The instruction of a row that needs its mask
(`MASK` = 1) refers to a place that only the mask shows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, Literal

from pydantic import Field

from careedit.errors import CareEditError
from careedit.files import atomic_path, png_bytes
from careedit.images import decode_image, grow
from careedit_eval.benchmarks.humanedit import HumanEdit, HumanEditConfig
from careedit_eval.benchmarks.shards import Line
from careedit_eval.errors import BenchmarkError
from careedit_eval.records import Scalar
from careedit_tiny import SPLITS, changed_region, draw_sample
from careedit_tiny.recipes.clip.captions import caption_of
from careedit_tiny.world.samples import Sample as Drawn

VERSION = 1
"""Of what is drawn for given options; in the file's name."""
OPERATIONS: Mapping[str, tuple[str, str]] = {
    "Add": ("add", "masked.add"),
    "Remove": ("remove", "masked.remove"),
    "Replace": ("replace", "masked.replace"),
    "Action": ("action", "action"),
    "Counting": ("counting", "counting"),
    "Relation": ("relation", "relation"),
}
"""HumanEdit's kinds as kinds of the tiny world: without a mask, and in every `MASKED`th row with one."""
MASKED = 4
CORE = 10
"""One row of so many, of each kind, is in the CORE subset."""
MARGIN = 2
"""Pixels (of 64) by which an erased region is larger than the change."""
GROUP = 100
"""Rows per row group, as the hub writes pictures."""


class TinyHumanEditConfig(HumanEditConfig):
    """Which drawing."""

    path: str = Field(default="~/.cache/careedit/tiny_humanedit", min_length=1)
    """The folder of the drawn files, one per choice of options."""
    rows: int = Field(default=600, ge=6, le=60_000)
    """The number of rows to draw. The kinds of edit take turns."""
    seed: int = Field(default=0, ge=0, le=99)
    """The seed of the scenes. Another seed draws other scenes of the same split."""
    split: Literal["train", "validation", "test"] = "test"
    """The split of the drawn world; no model was trained on scenes of "test"."""
    size: int = Field(default=64, ge=32, le=1024)
    """The side of the images, in pixels."""
    masks: Literal["none", "needed", "all"] = "needed"
    """The rows whose masks the editor sees, as in `HumanEditConfig.masks`."""


class TinyHumanEdit(HumanEdit):
    """HumanEdit on drawn rows, which are drawn if their file does not exist."""

    def __init__(self, config: TinyHumanEditConfig) -> None:
        name = f"tiny-humanedit-v{VERSION}-{config.split}-{config.rows}-{config.seed}-{config.size}.parquet"
        self.file = Path(os.path.expanduser(config.path)) / name
        super().__init__(config.model_copy(update={"path": str(self.file)}), name="tiny_humanedit")
        self.tiny = config
        self.revision = config.revision or f"tiny-v{VERSION}"

    def write(self) -> None:
        """Draw the rows into the file."""
        write_rows(self.file, self.tiny)

    def _read(self) -> Iterator[Any]:
        if not self.file.is_file():
            self.write()
        yield from super()._read()

    def _extras(self, line: Line) -> dict[str, Scalar]:
        """The drawing as JSON, for the oracle. Raises `BenchmarkError` if another version of the world drew the file."""
        drawn = draw(line.text("IMAGE_ID"))
        try:
            pictures = [decode_image(line.picture(column).read()) for column in ("INPUT_IMG", "OUTPUT_IMG")]
        except CareEditError:  # a damaged picture is that row's own matter
            pictures = []
        if pictures and any(
            picture.tobytes() != scene(picture.width).tobytes()
            for picture, scene in zip(pictures, (drawn.source_image, drawn.target_image), strict=True)
        ):
            raise BenchmarkError(
                f"{self.file.name!r} was drawn by another version of the tiny world; delete {str(self.file)!r}, and it "
                "is drawn again."
            )
        return {"scene": json.dumps(drawn.to_dict(), sort_keys=True), "operation": drawn.operation}


def draw(identity: str) -> Drawn:
    """The drawing of an `IMAGE_ID`, "KIND-SEED" or "OPERATION-SEED". Raises `BenchmarkError`."""
    kind, _, number = identity.rpartition("-")
    try:
        seed = int(number)
        split = next(name for name, seeds in SPLITS.items() if seed in seeds)
        return draw_sample(kind, seed - SPLITS[split].start, split)  # type: ignore[arg-type]
    except (ValueError, StopIteration, KeyError):
        raise BenchmarkError(
            f"The IMAGE_ID {identity!r} names no drawing of the tiny world; draw the rows again."
        ) from None


def write_rows(file: Path, config: TinyHumanEditConfig) -> None:
    """Draw `config.rows` rows into a parquet file, atomically. Raises `BenchmarkError`."""
    import pyarrow as pa
    from pyarrow import parquet

    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [_row(place, config) for place in range(config.rows)]
    columns = {name: pa.array([row[name] for row in rows], type=_type(pa, picture, name)) for name in rows[0]}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            parquet.write_table(pa.table(columns), temporary, row_group_size=GROUP)
    except OSError as error:
        raise BenchmarkError(
            f"{str(file)!r} cannot be written ({error.strerror}); choose another path or free some space."
        ) from error


def _type(pa: Any, picture: Any, name: str) -> Any:
    if name.endswith("_IMG"):
        return picture
    return pa.int32() if name in ("CORE", "MASK") else pa.string()


def _row(place: int, config: TinyHumanEditConfig) -> dict[str, Any]:
    kind = tuple(OPERATIONS)[place % len(OPERATIONS)]
    turn = place // len(OPERATIONS)
    operation = OPERATIONS[kind][turn % MASKED == MASKED - 1]
    seed = SPLITS[config.split].start + config.seed * 10_000 + turn
    identity = f"{operation}-{seed}"
    drawn = draw(identity)
    source, target = drawn.source_image(config.size), drawn.target_image(config.size)
    region = drawn.mask_image(config.size) or grow(
        changed_region(source, target), max(1, round(MARGIN * config.size / 64))
    )
    erased = source.copy()
    erased.putalpha(region.point(lambda value: 255 - value))
    words = Random(identity)
    pictures = {"INPUT_IMG": source, "MASK_IMG": erased, "OUTPUT_IMG": target}
    return {
        "IMAGE_ID": identity,
        "EDITING_TYPE": kind,
        "CORE": int(turn % CORE == 0),
        "MASK": int(drawn.box is not None),
        "EDITING_INSTRUCTION": drawn.instruction,
        "OUTPUT_DESCRIPTION": str(caption_of(drawn.target, words, whole=True)),
        "INPUT_CAPTION_BY_LLAMA": str(caption_of(drawn.source, words, whole=True)),
        "OUTPUT_CAPTION_BY_LLAMA": str(caption_of(drawn.target, words)),
        **{name: {"bytes": png_bytes(image), "path": f"{identity}.png"} for name, image in pictures.items()},
    }


TINY_HUMANEDIT = (TinyHumanEditConfig, TinyHumanEdit)
"""The benchmark as an entry point: the record of its options, and what is built from it."""
