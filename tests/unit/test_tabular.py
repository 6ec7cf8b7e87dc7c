"""Cells, lines and file names of tables that users write."""

import datetime
import math
import re
import unicodedata
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from careedit.errors import InputError
from careedit.tabular import find_file, is_missing, lines_of, words_of

EMPTY = [
    None,
    math.nan,
    np.float32("nan"),
    Decimal("nan"),
    pd.NA,
    pd.NaT,
    "",
    "  ",
    b"",
    {},
    {"bytes": None, "path": math.nan},
]


@pytest.mark.parametrize("value", EMPTY, ids=repr)
def test_an_empty_cell_is_missing_and_no_words(value):
    assert is_missing(value)
    assert words_of(value) == ""


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"), (3, "3"), (3.0, "3"), (np.int64(3), "3"), (np.float32(3), "3"), (Decimal("3.00"), "3"), (-0.0, "0"),
        (2.5, "2.5"), (10**30, "1" + "0" * 30), (" nan ", "nan"), ("0", "0"), (datetime.date(2026, 1, 2), "2026-01-02"),
    ],
)  # fmt: skip
def test_a_number_is_its_shortest_form(value, words):
    assert not is_missing(value)
    assert words_of(value) == words


@pytest.mark.parametrize("value", [True, False, np.True_, math.inf, [1], {"a": 1}, b"x", np.array([1, 2])], ids=repr)
def test_what_is_no_text_is_refused(value):
    assert not is_missing(value)
    with pytest.raises(InputError, match="not text"):
        words_of(value)


def test_text_that_no_file_can_hold_is_refused():
    with pytest.raises(InputError, match="surrogate"):
        words_of("a\ud83d")


def test_a_number_is_no_instruction():
    with pytest.raises(InputError, match=r"a float \(5.0\), not text"):
        words_of(5.0, numbers=False)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"])
def test_a_line_ends_at_lf_and_crlf_only(mark):
    assert lines_of(f"a{mark}b\r\nc\n\nd") == [f"a{mark}b", "c", "", "d"]
    assert lines_of("a\n") == lines_of("a") == ["a"]


def test_a_file_is_found_by_its_name_in_either_unicode_form(tmp_path):
    composed = unicodedata.normalize("NFC", "Größe/é.png")
    for stored, asked in (
        (composed, unicodedata.normalize("NFD", composed)),
        (unicodedata.normalize("NFD", composed), composed),
    ):
        folder = tmp_path / str(len(stored))
        (folder / stored).parent.mkdir(parents=True)
        (folder / stored).write_bytes(b"x")
        assert find_file(folder, stored, "source") == find_file(folder, asked, "source") == folder / stored


def test_a_name_that_fits_two_files_names_none(tmp_path):
    # The same letter in three forms: composed, decomposed, and the Angstrom sign.
    for name in ("\u00c5.png", "A\u030a.png"):
        (tmp_path / name).write_bytes(b"x")
    assert find_file(tmp_path, "\u00c5.png", "source").name == "\u00c5.png"
    with pytest.raises(InputError, match="names 2 files"):
        find_file(tmp_path, "\u212b.png", "source")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gone.png", "'gone.png' does not exist below"),
        ("https://example.org/a.png", "is an address; download it"),
        ("s3://bucket/a.png", "is an address; download it"),
        ("data:image/png;base64,AAAA", "is an address"),
        ("folder", "'folder' is a folder"),
        ("x" * 5000, "is not a file name"),
        ("a\0b", "does not exist"),
        (3.5, "is a float"),
        (True, "is a bool"),
        (["a.png"], "is a list"),
        ("../gone/é.png", "does not exist"),
    ],
)
def test_what_is_no_file_is_named(tmp_path, name, says):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=says):
        find_file(tmp_path, name, "source")


def test_texts_of_users_are_cut_into_lines_by_nothing_else():
    """`str.splitlines` is left to bytes (which end lines at CR and LF only), to messages of errors, and to /proc."""
    allowed = {"serve.py", "vlm.py", "growth.py", "timing_worker.py", "store.py", "lines.py", "folder.py"}
    roots = [Path(__file__).parents[2] / root for root in ("platform", "deployments", "eval")]
    found = [file for root in roots for file in root.rglob("*.py") if ".splitlines(" in file.read_text("utf-8")]
    assert {file.name for file in found} - allowed == set()
    for file in found:
        if file.name in ("store.py", "lines.py"):
            assert re.findall(r"(\S+)\.splitlines\(", file.read_text("utf-8")) in (["file.read_bytes()"], ["data"])
