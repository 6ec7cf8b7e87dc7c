"""Small files in the layouts in which benchmarks are published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from careedit.files import png_bytes

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def picture(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.radial_gradient("L").resize(size).convert("RGB").point([(v + 40 * seed) % 256 for v in range(256)] * 3)


def draw(file: Path, seed: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(file)


def gedit_rows(kinds: Sequence[str], **changes: Any) -> list[dict[str, Any]]:
    """Rows of GEdit-Bench: each kind in both languages, the first kind not in the intersection."""
    return [
        {
            "task_type": kind,
            "key": f"k{number}-{language}",
            "instruction": f"do {number}" if language == "en" else f"做 {number}",
            "instruction_language": language,
            "input_image": picture(number),
            "input_image_raw": picture(number, (96, 72)),
            "Intersection_exist": number > 0,
            **changes,
        }
        for number, kind in enumerate(kinds)
        for language in ("en", "cn")
    ]


def write_arrow(file: Path, rows: Sequence[Mapping[str, Any]], *, batch: int = 3, stream: bool = True) -> None:
    """What `datasets.save_to_disk` writes: a stream of batches, images as {bytes, path}."""
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        imaged = any(isinstance(value, Image.Image | bytes) for value in values)
        if imaged:
            files = [png_bytes(value) if isinstance(value, Image.Image) else value for value in values]
            values = [{"bytes": data, "path": None} for data in files]
        columns[name] = pa.array(values, type=IMAGE if imaged else None)
    table = pa.table(columns)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(file), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)


def listing(file: Path, entries: object) -> Path:
    """A JSON listing, with every image that its entries name next to it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    return file


def imgedit(folder: Path, kinds: Sequence[str]) -> Path:
    """The basic suite: a row per kind."""
    for number, kind in enumerate(kinds):
        draw(folder / f"{kind}/{number}.png", number)
    rows = {str(i): {"id": f"{k}/{i}.png", "prompt": f"do {i}", "edit_type": k} for i, k in enumerate(kinds)}
    return listing(folder / "basic_edit.json", rows)


def kris(folder: Path) -> Path:
    """Four categories: one image, an image of the right result, several images, and frames."""
    rows = {
        "color_change": {"1": {"ori_img": "1.png", "ins_en": "make it red", "explain_en": ""}},
        "biology": {"1": {"ori_img": "1.png", "ins_en": "a year later", "explain_en": "It grows leaves."}},
        "multi-element_composition": {"1": {"ori_img": ["1-1.png", "1-2.png"], "gt_img": "", "ins_en": "put both"}},
        "temporal_prediction": {"1": {"ori_img": ["1-1.png", "1-3.png", "1-4.png"], "gt_img": "1-2.png", "ins_en": "frame 2"}},
        "viewpoint_change": {"1": {"ori_img": "1.png", "gt_img": "1_gt.png", "ins_en": "from above"}},
    }  # fmt: skip
    for category, entries in rows.items():
        listing(folder / category / "annotation.json", entries)
        for cells in entries.values():
            named = cells["ori_img"] if isinstance(cells["ori_img"], list) else [cells["ori_img"]]
            for seed, name in enumerate(filter(None, [*named, cells.get("gt_img")])):
                draw(folder / category / name, seed)
    return folder


def rise(folder: Path) -> Path:
    """Each kind of question that RISEBench has."""
    rows = [
        {"index": "temporal_1", "category": "temporal_reasoning", "reference": "a rotten {banana}"},
        {"index": "temporal_2", "category": "temporal_reasoning", "reference": "a tree", "consistency_free": 1.0},
        {"index": "causal_1", "category": "causal_reasoning", "reference": "bitten", "reasoning_img": 1.0},
        {"index": "spatial_1", "category": "spatial_reasoning", "reference": "from above"},
        {"index": "spatial_2", "category": "spatial_reasoning", "reference_img": "s/2_ref.png"},
        {"index": "logical_1", "category": "logical_reasoning", "reference_txt": "4"},
        {"index": "logical_2", "category": "logical_reasoning", "reference_img": "l/2_ref.png"},
    ]
    for number, row in enumerate(rows):
        row |= {"instruction": f"think {number}", "image": f"i/{number}.png", "subtask": "Puzzle Solving"}
        draw(folder / row["image"], number)
        if "reference_img" in row:
            draw(folder / row["reference_img"], number + 1)
    return listing(folder / "data_total.json", rows)


def anybench(folder: Path) -> Path:
    """AnyEdit's test archive: a type with captions, and one with a visual input."""
    rows: dict[str, list[dict[str, Any]]] = {"add": [], "visual_bbox": []}
    for kind, entries in rows.items():
        for number in range(2):
            cells = {"image_file": f"{kind}/{number}.png", "edited_file": f"{kind}/{number}_edited.png"}
            for seed, name in enumerate(cells.values()):
                draw(folder / name, number + seed)
            draw(folder / f"{kind}/box.png", 5)
            box = f"{kind}/box.png" if kind == "visual_bbox" else "None"
            captions = {"input": "a scene", "output": f"a scene with {number}"}
            entries.append({"edit": f"add {number}", "edit_type": kind, "visual_input": box, **captions, **cells})
        listing(folder / kind / "edit_result.json", entries)
    return folder
