"""The cache of `careedit eval quality` and `filter`: what a run leaves for the next one, even if it is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from careedit.errors import InputError
from careedit_tiny.evaluation.common import Cache
from careedit_tiny.evaluation.filter import SceneTable
from careedit_tiny.evaluation.quality import Outcome

A, B = (Outcome(True, False, 0.01, 0.005, 0.02, nfe=8, seconds=0.5, key=key) for key in "ab")


def test_the_next_run_finds_what_was_put(tmp_path: Path) -> None:
    Cache(Outcome, tmp_path).put([A])
    Cache(Outcome, tmp_path).put([B])

    cache = Cache(Outcome, tmp_path)

    assert (cache.get("a"), cache.get("b"), cache.get("c"), cache.unreadable) == (A, B, None, 0)


def test_a_scene_table_comes_back_as_it_was(tmp_path: Path) -> None:
    scores = {"judge": {"8@2": (0.25, None)}}
    table = SceneTable("remove-0", "remove", 1, (True, False), scores, None, 0.5, {"judge": 0.25}, key="k")
    Cache(SceneTable, tmp_path).put([table])

    assert Cache(SceneTable, tmp_path).get("k") == table


@pytest.mark.parametrize("line", ["[]", "17", '{"key": "a"}', '{"followed": true', "\x00"])
def test_a_line_that_is_not_an_outcome_costs_that_line_only(tmp_path: Path, line: str) -> None:
    Cache(Outcome, tmp_path).put([B])
    (tmp_path / "0.jsonl").write_text(line + "\n")

    cache = Cache(Outcome, tmp_path)

    assert (cache.get("b"), cache.unreadable) == (B, 1)


def test_many_files_become_one_and_lose_nothing(tmp_path: Path) -> None:
    cache = Cache(Outcome, tmp_path)
    for _ in range(70):
        cache.put([A, B])

    again = Cache(Outcome, tmp_path)

    assert len(list(tmp_path.iterdir())) == 1
    assert (again.get("a"), again.get("b")) == (A, B)


def test_an_unusable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match="cannot be used"):
        Cache(Outcome, tmp_path / "file")


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    cache = Cache(Outcome)
    cache.put([A])

    assert cache.get("a") == A
    assert list(tmp_path.iterdir()) == []
