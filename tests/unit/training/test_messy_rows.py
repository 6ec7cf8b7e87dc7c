"""Rows and examples as pandas, macOS and other programs write them: empty cells, line separators, Unicode forms."""

import json
import math
import unicodedata

import pandas as pd
import pytest

from careedit.errors import InputError
from careedit.experts import PanelSpec
from careedit.finetune.data import BadRowError, RowRules, find_columns, open_table, read_row
from careedit.finetune.router.examples import read_examples

RULES = RowRules(PanelSpec(size=64, multiple=8))
ROW = {"source": "a.png", "target": "b.png", "instruction": "do it"}
OTHER = {**ROW, "mask": "m.png", "reference": "b.png"}


@pytest.fixture
def own(tmp_path, draw_picture, draw_mask):
    for name in ("a", "b"):
        draw_picture(seed=ord(name)).save(tmp_path / f"{name}.png")
    draw_mask().save(tmp_path / "m.png")
    return tmp_path


def write_json(folder, *rows):
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_csv(folder, *rows):
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)


def write_parquet(folder, *rows):
    pd.DataFrame(rows).to_parquet(folder / "rows.parquet")


def read(folder, index=0):
    table = open_table(folder)
    return read_row(table, index, find_columns(table.columns), RULES)


@pytest.mark.parametrize("write", [write_json, write_csv, write_parquet])
def test_an_empty_cell_of_pandas_is_an_empty_cell(write, own):
    write(own, ROW | {"mask": math.nan, "reference": math.nan}, OTHER)
    row = read(own)
    assert (row.mask, row.reference) == (None, None)
    assert read(own, 1).mask is not None


@pytest.mark.parametrize("write", [write_json, write_csv, write_parquet])
@pytest.mark.parametrize(("role", "kind"), [("instruction", "empty instruction"), ("target", "no picture")])
def test_an_empty_cell_that_is_needed_is_that_rows_fault(write, role, kind, own):
    write(own, ROW | {role: math.nan}, ROW)
    with pytest.raises(BadRowError) as found:
        read(own)
    assert found.value.kind == kind
    assert read(own, 1).instruction == "do it"


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\x0c", "\r"])
def test_a_line_separator_inside_an_instruction_does_not_cut_its_row(mark, own):
    words = f"make it{mark}red"
    (own / "metadata.csv").write_bytes(f'source,target,instruction\r\na.png,b.png,"{words}"\r\n'.encode())
    table = open_table(own)
    assert len(table) == 1
    assert read(own).instruction == words


def test_a_file_in_another_unicode_form_is_found_and_what_is_no_file_is_named(own):
    (own / "a.png").rename(own / unicodedata.normalize("NFD", "é.png"))
    names = ("é.png", "https://example.org/a.png", "gone.png")
    write_json(own, *(ROW | {"source": unicodedata.normalize("NFC", name)} for name in names))
    assert read(own).source.size == (64, 64)
    for index, says in ((1, "is an address"), (2, "'gone.png' does not exist below")):
        with pytest.raises(BadRowError, match=says):
            read(own, index)


def test_a_csv_whose_lines_all_have_another_number_of_fields_is_refused_by_its_first(own):
    (own / "metadata.csv").write_text("source,target,instruction\na.png,b.png,do it, now\nb.png,a.png\n")
    with pytest.raises(InputError, match=r"None of the 2 rows.*line 2: the line has 4 fields where the header has 3"):
        open_table(own)


def test_one_line_with_another_number_of_fields_is_one_bad_row(own):
    (own / "metadata.csv").write_text("source,target,instruction\na.png,b.png,do it, now\na.png,b.png,do it\n")
    with pytest.raises(BadRowError, match="has 4 fields where the header has 3"):
        read(own)
    assert read(own, 1).instruction == "do it"


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\x0c", ""])
def test_router_examples_are_cut_at_line_ends_only_and_nan_is_an_empty_field(mark, own):
    (own / "a.png").rename(own / unicodedata.normalize("NFD", "é.png"))
    line = {
        "instruction": f"make it{mark}red",
        "image": "é.png",
        "expert": "style",
        "mask": math.nan,
        "feasible": math.nan,
    }
    text = json.dumps(line, ensure_ascii=False) + "\r\n" + json.dumps({**line, "image": "gone.png"}) + "\n"
    (own / "examples.jsonl").write_bytes(text.encode())
    found, bad = read_examples(own / "examples.jsonl", skip_bad=True)
    assert [(one.features.instruction, one.feasible) for one in found] == [(f"make it{mark}red", True)]
    assert [one.line for one in bad] == [2] and "gone.png" in bad[0].reason
