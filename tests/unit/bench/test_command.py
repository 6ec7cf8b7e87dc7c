"""The table that a person reads, and what is refused before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from careedit.bench import Comparison, Lap, Report
from careedit.cli.main import main

FACTS = {"expert_set": "untrained", "experts": 8, "steps": 4, "repeats": 3, "threads": 1}
FACTS |= {"device": "cpu", "dtype": "float32", "torch": "2.14.1"}


@pytest.fixture
def measured(monkeypatch):
    """Stands for a run: the batch is too slow, switching costs nothing."""

    def comparison(ratio: float) -> Comparison:
        return Comparison("a", "b", (Lap(ratio, ratio),) * 3, (Lap(1.0, 1.0),) * 3)

    ratios = {"switch_ratio_shared": 1.0, "mixed_batch_speedup": 1.5, "shared_step_ratio": 1.25}
    report = Report(
        environment=FACTS,
        comparisons={name: comparison(ratio) for name, ratio in ratios.items()},
        shares={"flux": 0.011, "subject": 0.08, "subject_rank_32": 0.16},
    )
    monkeypatch.setattr("careedit.cli.bench.load_subject", lambda *_, **__: None)
    monkeypatch.setattr("careedit.cli.bench.bench_engine", lambda *_, **__: report)


@pytest.mark.usefixtures("measured")
def test_the_table_shows_value_goal_and_verdict_and_an_unmet_goal_is_no_failure(capsys):
    assert main(["bench", "engine"]) == 0

    shown = capsys.readouterr()
    header, *lines = (line.split("\t") for line in shown.out.splitlines())
    table: dict[str, Any] = {line[0]: dict(zip(header, line, strict=True)) for line in lines}
    assert {name: row["verdict"] for name, row in table.items()} == {
        "switch_ratio_shared": "met",
        "mixed_batch_speedup": "not met",
        "shared_step_ratio": "-",
        "memory_share_per_expert": "met",
    }
    assert table["mixed_batch_speedup"] == {
        "figure": "mixed_batch_speedup",
        "value": "1.500",
        "spread": "1.50 to 1.50",
        "goal": "at least 2",
        "verdict": "not met",
        "time": "1.500 s",
        "over": "1.000 s",
    }
    assert "1 threads, cpu, float32" in shown.err


@pytest.mark.usefixtures("measured")
def test_an_output_file_holds_what_json_shows(tmp_path, capsys):
    out = tmp_path / "engine.json"

    assert main(["bench", "engine", "--json", "--out", str(out)]) == 0

    assert out.read_text("utf-8") == capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("option", ["--repeats", "--steps", "--threads"])
def test_a_count_of_zero_is_the_users_mistake_and_nothing_is_written(option, tmp_path, capsys):
    assert main(["bench", "engine", option, "0", "--out", str(tmp_path / "engine.json")]) == 2

    assert option in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_output_in_a_missing_folder_is_refused_before_anything_is_measured(tmp_path, capsys):
    assert main(["bench", "engine", "--out", str(tmp_path / "missing" / "engine.json")]) == 2

    assert "does not exist" in capsys.readouterr().err
