"""`careedit bench filter`: whether previews and a judge earn their steps, on scenes with exact truth."""

from careedit_tiny.bench.filter.measure import FilterBench
from careedit_tiny.bench.filter.plan import FilterPlan
from careedit_tiny.bench.filter.run import GOALS, bench_filter
from careedit_tiny.bench.filter.table import SceneTable, TableCache

__all__ = ["GOALS", "FilterBench", "FilterPlan", "SceneTable", "TableCache", "bench_filter"]
