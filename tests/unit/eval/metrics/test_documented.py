"""What docs/benchmarks-and-metrics.md promises is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from careedit_eval.benchmarks import benchmark_names, find_benchmark
from careedit_eval.metrics import metric_names
from careedit_eval.records import Metric

PAGE = (Path(__file__).parents[4] / "docs/benchmarks-and-metrics.md").read_text(encoding="utf-8")


def first_column(section: str) -> set[str]:
    rows = PAGE.split(f"## {section}\n")[1].split("\n## ")[0]
    return {name for row in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def test_every_benchmark_and_every_metric_is_explained() -> None:
    assert first_column("Benchmarks") == set(benchmark_names())
    assert first_column("Metrics") == set(metric_names())


@pytest.mark.parametrize("name", sorted(benchmark_names()))
def test_every_option_of_a_benchmark_is_named(name: str) -> None:
    own = set(find_benchmark(name)[0].model_fields)  # type: ignore[attr-defined]
    assert {option for option in own if f"`{option}" not in PAGE} <= {"columns"}


def test_the_metric_of_ones_own_measures(make_item: Any) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    made: dict[str, Any] = {}
    exec(block, made)  # noqa: S102 - the page's own example
    metric = made["Brightness"]()
    assert isinstance(metric, Metric)
    white, broken = Image.new("RGB", (4, 4), "white"), b"nothing"
    first, second = metric.score([make_item(white, white), make_item(white, broken)])
    assert first.values == {"brightness": 1.0}
    assert second.error is not None
