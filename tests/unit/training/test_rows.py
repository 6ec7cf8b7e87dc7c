"""A user's rows: which columns they are in, what is read of them, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from careedit.editing import FluxFill
from careedit.editing.families.fill import DIPTYCH, TRIPTYCH
from careedit.errors import InputError
from careedit.experts import PanelSpec
from careedit.files import png_bytes
from careedit.finetune.data import (
    BadRowError,
    Columns,
    Plan,
    RowRules,
    check_rows,
    find_columns,
    open_table,
    parse_columns,
    read_row,
    refusal,
    row_item,
    write_problems,
)
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH

RULES = RowRules(PanelSpec(size=64, multiple=8))
COLUMNS = Columns("source", "instruction", "target", "mask", "reference")
Draw = Callable[..., Image.Image]


def write_table(folder: Path, rows: Sequence[Mapping[str, Any] | str]) -> Path:
    """A folder with metadata.jsonl; pictures among the cells are written beside it."""
    folder.mkdir(exist_ok=True)
    lines = []
    for number, row in enumerate(rows):
        if isinstance(row, str):
            lines.append(row)
            continue
        cells = {}
        for name, value in row.items():
            cells[name] = value
            if isinstance(value, Image.Image):
                cells[name] = f"{number}-{name}.png"
                value.save(folder / cells[name])
        lines.append(json.dumps(cells))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


@pytest.fixture
def row(draw_picture):
    return {"source": draw_picture(seed=1), "instruction": "add a star", "target": draw_picture(seed=2)}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("source", "instruction", "target"), Columns("source", "instruction", "target")),
        (
            ("source_file_name", "target_file_name", "instruction", "mask_file_name"),
            Columns("source_file_name", "instruction", "target_file_name", "mask_file_name"),
        ),
        (
            ("IMAGE_ID", "EDITING_TYPE", "CORE", "MASK", "EDITING_INSTRUCTION", "INPUT_IMG", "MASK_IMG", "OUTPUT_IMG"),
            Columns("INPUT_IMG", "EDITING_INSTRUCTION", "OUTPUT_IMG", "MASK_IMG"),
        ),
        (
            ("img_id", "turn_index", "source_img", "mask_img", "instruction", "target_img"),
            Columns("source_img", "instruction", "target_img", "mask_img"),
        ),
        (("input_image", "edit_prompt", "edited_image"), Columns("input_image", "edit_prompt", "edited_image")),
    ],
)
def test_known_column_names_need_no_configuration(names, found):
    assert find_columns(names) == found


def test_stated_columns_come_first():
    names = ("before", "text", "after", "source")
    found = find_columns(names, parse_columns("source=before, instruction=text,target=after"))
    assert found == Columns("before", "text", "after")


@pytest.mark.parametrize("text", ["source", "sauce=a", "source=a,source=b", "source="])
def test_columns_that_cannot_be_read_are_refused(text):
    with pytest.raises(InputError, match="ROLE=COLUMN"):
        parse_columns(text)


def test_unknown_columns_are_named_and_the_known_ones_too():
    with pytest.raises(InputError, match=r"'before', 'after'.*--columns.*EDITING_INSTRUCTION"):
        find_columns(("before", "after"))
    with pytest.raises(InputError, match="column 'nowhere' for the mask does not exist"):
        find_columns(("source", "instruction", "target"), {"mask": "nowhere"})


def test_a_row_becomes_a_canvas_with_its_prompt(tmp_path, row):
    table = open_table(write_table(tmp_path / "t", [row]))
    item = row_item(read_row(table, 0, find_columns(table.columns), RULES), RULES)
    assert item.prompt == f"{DIPTYCH} add a star"
    assert item.canvas.size == item.mask.size == (128, 64)
    assert item.canvas.crop((0, 0, 64, 64)).tobytes() == row["source"].tobytes()
    assert item.canvas.crop((64, 0, 128, 64)).tobytes() == row["target"].tobytes()
    assert np.asarray(item.mask)[:, 64:].min() == 255
    assert np.asarray(item.mask)[:, :64].max() == 0
    assert item.labels is None


def test_mask_and_reference_are_used(tmp_path, row, draw_picture, draw_mask):
    row |= {"mask": draw_mask(), "reference": draw_picture((40, 90), 7)}
    table = open_table(write_table(tmp_path / "t", [row]))
    item = row_item(read_row(table, 0, COLUMNS, RULES), RULES)
    assert item.prompt.startswith(TRIPTYCH)
    assert item.canvas.size == (192, 64)
    assert np.array_equal(np.asarray(item.mask)[:, 128:], np.asarray(row["mask"]))
    without = row_item(read_row(table, 0, COLUMNS, RowRules(RULES.panel, masks=False)), RULES)
    assert np.asarray(without.mask)[:, 128:].min() == 255


def test_csv_parquet_and_jsonl_rows_are_the_same(tmp_path, row):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = write_table(tmp_path / "t", [row, row])
    (tmp_path / "t" / "rows.csv").write_text(
        "source,instruction,target\n" + "0-source.png,add a star,0-target.png\n" * 2, "utf-8"
    )
    cells = {"source": {"bytes": png_bytes(row["source"]), "path": "0.png"}, "instruction": "add a star"}
    cells |= {"target": {"bytes": None, "path": str(folder / "0-target.png")}}
    for name in ("a", "b"):
        parquet.write_table(pyarrow.Table.from_pylist([cells]), tmp_path / f"shards-{name}.parquet")
    tables = [open_table(path) for path in (folder, folder / "rows.csv", tmp_path / "shards-a.parquet")]
    items = [row_item(read_row(table, 0, find_columns(table.columns), RULES), RULES) for table in tables]
    assert len({item.canvas.tobytes() for item in items}) == 1
    shards = tmp_path / "shards"
    shards.mkdir()
    for name in ("a", "b"):
        (tmp_path / f"shards-{name}.parquet").rename(shards / f"{name}.parquet")
    table = open_table(shards)
    assert (len(table), table.where(1)) == (2, "b.parquet, row 1")
    assert read_row(table, 1, find_columns(table.columns), RULES).instruction == "add a star"


def bad_rows(row: dict[str, Any], draw_picture: Draw) -> dict[str, dict[str, Any]]:
    """Kind of problem -> a row that has it."""
    return {
        "missing file": row | {"target": "nowhere.png"},
        "no picture": {key: value for key, value in row.items() if key != "target"},
        "empty instruction": row | {"instruction": "  "},
        "sizes differ": row | {"target": draw_picture((64, 40))},
        "bad mask": row | {"mask": Image.new("L", (64, 64), 0)},
    }


@pytest.mark.parametrize("kind", ["missing file", "no picture", "empty instruction", "sizes differ", "bad mask"])
def test_a_bad_row_says_what_is_wrong(tmp_path, row, draw_picture, kind):
    table = open_table(write_table(tmp_path / "t", [bad_rows(row, draw_picture)[kind]]))
    with pytest.raises(BadRowError) as caught:
        read_row(table, 0, COLUMNS, RULES)
    assert caught.value.kind == kind


def test_a_picture_in_place_of_a_mask_is_refused(tmp_path, row):
    grey = Image.fromarray(np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1)))
    table = open_table(write_table(tmp_path / "t", [row | {"mask": grey}]))
    with pytest.raises(BadRowError, match="black-and-white"):
        read_row(table, 0, COLUMNS, RULES)


def test_a_picture_with_an_erased_region_is_a_mask_as_in_humanedit(tmp_path, row):
    erased = Image.new("RGBA", (64, 64), (70, 70, 70, 255))
    erased.paste((0, 0, 0, 0), (8, 8, 24, 40))
    table = open_table(write_table(tmp_path / "t", [row | {"mask": erased}]))
    mask = read_row(table, 0, COLUMNS, RULES).mask
    assert mask is not None
    assert mask.getbbox() == (8, 8, 24, 40)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_corrupt_picture_is_named(tmp_path, row, content):
    folder = write_table(tmp_path / "t", [row])
    (folder / "0-source.png").write_bytes(content)
    with pytest.raises(BadRowError) as caught:
        read_row(open_table(folder), 0, COLUMNS, RULES)
    assert (caught.value.kind, caught.value.file) == ("unreadable picture", "0-source.png")


def test_animated_and_huge_pictures_are_refused(tmp_path, row, draw_picture):
    folder = write_table(tmp_path / "t", [row, row])
    frames = [draw_picture(seed=seed) for seed in (1, 2)]
    frames[0].save(folder / "0-source.png", save_all=True, append_images=frames[1:])
    Image.new("1", (9000, 9000)).save(folder / "1-source.png")
    table = open_table(folder)
    for index, words in ((0, "animated"), (1, "pixels; the limit")):
        with pytest.raises(BadRowError, match=words):
            read_row(table, index, COLUMNS, RULES)


@pytest.mark.parametrize("size", [(128, 128), (63, 64), (32, 32)])
def test_a_target_of_the_same_shape_may_have_another_size(tmp_path, row, draw_picture, size):
    table = open_table(write_table(tmp_path / "t", [row | {"target": draw_picture(size, 2)}]))
    assert row_item(read_row(table, 0, COLUMNS, RULES), RULES).canvas.size == (128, 64)


def test_a_target_of_another_shape_is_stretched_or_the_source_cropped_where_asked_for(tmp_path, draw_picture):
    source, target = draw_picture((96, 64), 1), draw_picture((64, 64), 2)
    row = {"source": source, "instruction": "x", "target": target}
    table = open_table(write_table(tmp_path / "t", [row]))
    stretched = read_row(table, 0, COLUMNS, RowRules(RULES.panel, "stretch"))
    assert stretched.source.size == (96, 64)
    cropped = read_row(table, 0, COLUMNS, RowRules(RULES.panel, "crop"))
    assert cropped.source.tobytes() == source.crop((16, 0, 80, 64)).tobytes()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "has no metadata.jsonl"),
        (lambda folder: (folder / "metadata.jsonl").write_text("\n"), "has no rows"),
        (lambda folder: (folder / "metadata.jsonl").write_bytes(b"\xff\xfe\x00"), "UTF-8"),
        (lambda folder: (folder / "metadata.csv").write_text("a,a\n1,2\n"), "names a column twice"),
        (lambda folder: (folder / "rows.parquet").write_bytes(b"PAR1 not really"), "cannot be read as parquet"),
        (
            lambda folder: [(folder / f"metadata.{kind}").write_text("{}\n") for kind in ("csv", "jsonl")],
            "has both",
        ),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, make, words):
    make(tmp_path)
    with pytest.raises(InputError, match=words):
        open_table(tmp_path)


@pytest.fixture
def base(tiny_pipeline):
    return FluxFill.from_pipeline(tiny_pipeline, max_sequence_length=MAX_SEQUENCE_LENGTH)


def test_every_bad_row_among_many_is_named_and_counted(tmp_path, row, draw_picture, base):
    good = [row | {"source": draw_picture(seed=seed)} for seed in range(10)]
    rows = [*good[:4], "{not json", *bad_rows(row, draw_picture).values(), *good[4:]]
    table = open_table(write_table(tmp_path / "t", rows))
    plan = check_rows(table, COLUMNS, RULES, base)
    assert [problem.row for problem in plan.problems] == [5, 6, 7, 8, 9, 10]
    assert plan.problems[0].where == "metadata.jsonl, line 5"
    assert plan.problems[1].file == "nowhere.png"
    assert len(plan.planned) == 10
    counts = dict(plan.summary())
    assert (counts["rows"], counts["trained on"] + counts["held out"], counts["bad: missing file"]) == (16, 10, 1)
    listing = tmp_path / "problems.csv"
    write_problems(plan.problems, listing)
    assert len(listing.read_text("utf-8").splitlines()) == 7
    assert "6 of 16 rows" in str(refusal(plan.problems, plan.rows, listing))
    write_problems((), listing)
    assert not listing.exists()
    assert Plan.from_document(json.loads(json.dumps(plan.document()))) == plan


def test_the_rows_held_out_are_fixed_and_share_no_source_with_the_others(tmp_path, row, draw_picture, base):
    rows = [row | {"source": draw_picture(seed=seed // 2), "instruction": f"edit {seed}"} for seed in range(12)]
    table = open_table(write_table(tmp_path / "t", rows))
    plan = check_rows(table, COLUMNS, RULES, base, held_out=0.3)
    assert plan == check_rows(table, COLUMNS, RULES, base, held_out=0.3)
    held = {entry.index // 2 for entry in plan.planned if entry.held_out}
    assert held
    assert not held & {entry.index // 2 for entry in plan.planned if not entry.held_out}
    assert not any(entry.held_out for entry in check_rows(table, COLUMNS, RULES, base, held_out=0).planned)


def test_oddities_of_good_rows_are_counted(tmp_path, row, base):
    rows = [row | {"target": row["source"]}, row | {"instruction": "remove the red circle " * 12}]
    plan = check_rows(open_table(write_table(tmp_path / "t", rows)), COLUMNS, RULES, base)
    assert plan.notes["target equal to the source"] == 1
    assert plan.notes["instruction cut at the base's 24 tokens"] == 1


def test_a_table_changes_its_identity_with_its_pictures(tmp_path, row):
    folder = write_table(tmp_path / "t", [row])
    before = open_table(folder).identity()
    assert open_table(folder).identity() == before
    Image.new("RGB", (64, 64)).save(folder / "0-target.png")
    assert open_table(folder).identity() != before
