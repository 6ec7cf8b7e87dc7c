"""Small copies of the published layouts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from careedit.files import png_bytes

PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write(file: Path, rows: Sequence[Mapping[str, Any]], *, group: int = 2) -> None:
    """A shard as the hub writes it; what is a picture or None in a column of pictures becomes {bytes, path}."""
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        pictured = any(isinstance(value, bytes | Image.Image) for value in values)
        if pictured:
            files = [png_bytes(value) if isinstance(value, Image.Image) else value for value in values]
            values = [{"bytes": data, "path": None} for data in files]
        columns[name] = pa.array(values, type=PICTURE if pictured else None)
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), file, row_group_size=group)


@pytest.fixture(scope="session")
def write_shard() -> Callable[..., None]:
    return write


def human_row(number: int, kind: str = "Add", **changes: Any) -> dict[str, Any]:
    """A row of HumanEdit: a wide source whose middle is the target, but for a square."""
    source = Image.linear_gradient("L").resize((96, 64)).convert("RGB")
    source.paste((number * 20 % 256, 90, 40), (20, 10, 60, 30))
    target = source.crop((16, 0, 80, 64))
    erased = target.copy()
    erased.putalpha(255)
    erased.paste((0, 0, 0, 0), (40, 40, 56, 56))
    target.paste((10, 10, 200), (42, 42, 54, 54))
    return {
        "IMAGE_ID": f"image-{number}",
        "EDITING_TYPE": kind,
        "CORE": int(number % 3 == 0),
        "MASK": int(number % 2 == 0),
        "EDITING_INSTRUCTION": f"Put a blue square there, {number}.",
        "OUTPUT_DESCRIPTION": "a blue square",
        "INPUT_CAPTION_BY_LLAMA": "A long text. " * 60,
        "OUTPUT_CAPTION_BY_LLAMA": "Another long text. " * 60,
        "INPUT_IMG": source,
        "MASK_IMG": erased,
        "OUTPUT_IMG": target,
        **changes,
    }


@pytest.fixture(scope="session")
def human_rows() -> Callable[..., list[dict[str, Any]]]:
    """`human_rows(count)`: rows in HumanEdit's columns."""
    kinds = ("Add", "Remove", "Replace", "Action", "Counting", "Relation")
    return lambda count: [human_row(i, kinds[i % 6]) for i in range(count)]


@pytest.fixture
def humanedit(tmp_path: Path, human_rows) -> Path:
    """Two shards of seven rows."""
    rows = human_rows(7)
    write(tmp_path / "humanedit/data/train-00000-of-00002.parquet", rows[:4])
    write(tmp_path / "humanedit/data/train-00001-of-00002.parquet", rows[4:])
    return tmp_path / "humanedit"


@pytest.fixture
def archive(tmp_path: Path, draw_picture) -> Path:
    """MagicBrush's test archive: a session of two turns and one of one."""
    folder = tmp_path / "test"
    sessions = {"242679": 2, "368667": 1}
    local: dict[str, dict[str, str]] = {}
    listing: dict[str, list[dict[str, str]]] = {}
    for number, (name, turns) in enumerate(sessions.items()):
        images = folder / "images" / name
        images.mkdir(parents=True)
        before = f"{name}-input.png"
        draw_picture((64, 48), seed=number).save(images / before)
        listing[name], local[name] = [], {}
        for turn in range(1, turns + 1):
            mask = Image.new("RGBA", (64, 48), (9, 9, 9, 255))
            mask.paste((0, 0, 0, 0), (8, 8, 24, 24))
            mask.save(images / f"{name}-mask{turn}.png")
            after = f"{name}-output{turn}.png"
            draw_picture((64, 48), seed=10 * number + turn).save(images / after)
            listing[name].append(
                {"input": before, "mask": f"{name}-mask{turn}.png", "output": after, "instruction": f"do {turn}"}
            )
            local[name][after] = f"what {name} shows after {turn}"
            before = after
    (folder / "edit_sessions.json").write_text(json.dumps(listing))
    (folder / "local_descriptions.json").write_text(json.dumps(local))
    (folder / "global_descriptions.json").write_text(json.dumps({}))
    return folder
