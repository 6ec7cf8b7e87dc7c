"""Reading a trace: what it says, and what is refused with the line's number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from careedit.errors import InputError
from careedit_deployments.bench.trace import MIXED, TraceRow, read_trace

ROW = {"arrival_s": 0.5, "size": "96x64", "steps": 8, "n": 2, "slo_ms": 1500}


def written(folder: Path, *lines: Any, header: Any = None) -> Path:
    path = folder / "trace.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in (header or {"careedit_trace": 1}, *lines)]
    path.write_text("\n".join(texts) + "\n", "utf-8")
    return path


def test_rows_are_read_in_their_order_and_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    first, second = read_trace(
        written(tmp_path, ROW, "", {k: v for k, v in ROW.items() if k != "n"} | {"expert": "erase"})
    )

    assert first == TraceRow(arrival_s=0.5, size="96x64", steps=8, n=2, slo_ms=1500)
    assert (first.pixels, first.expert) == ((96, 64), None)
    assert (second.n, second.expert) == (1, "erase")


def test_the_trace_that_comes_along_mixes_sizes_steps_and_counts() -> None:
    rows = read_trace(MIXED)

    assert len(rows) >= 50
    assert all(len({getattr(row, name) for row in rows}) > 1 for name in ("size", "steps", "n", "slo_ms"))


def test_a_slower_machine_gets_the_same_load() -> None:
    slowed = TraceRow(**ROW).slowed(3.0)

    assert (slowed.arrival_s, slowed.slo_ms, slowed.steps) == (1.5, 4500.0, 8)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([], "contains no request"),
        (["{"], "Line 2 of .* is not a JSON object"),
        (["[1]"], "Line 2 of .* is not a JSON object"),
        ([ROW, {**ROW, "size": "big"}], "Line 3 of .* write width and height as 1024x768"),
        ([{**ROW, "steps": 0}], "Line 2 of .* 'steps'"),
        ([{**ROW, "slo_ms": 0}], "Line 2 of .* 'slo_ms'"),
        ([{**ROW, "arrival_s": -1}], "Line 2 of .* 'arrival_s'"),
        ([{**ROW, "prompt": "x"}], "Line 2 of .* no field 'prompt'"),
        ([{k: v for k, v in ROW.items() if k != "slo_ms"}], "Line 2 of .* 'slo_ms', which is missing"),
        ([ROW, {**ROW, "arrival_s": 0.4}], "Line 3 of .* arrives before the previous line"),
    ],
)
def test_a_flaw_is_told_with_its_line(lines: list[Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        read_trace(written(tmp_path, *lines))


@pytest.mark.parametrize("header", [{"careedit_trace": 2}, ROW, "arrival_s,size"])
def test_a_file_without_this_versions_header_is_refused(header: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"first line|not a JSON object"):
        read_trace(written(tmp_path, ROW, header=header))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(tmp_path / "none.jsonl")
