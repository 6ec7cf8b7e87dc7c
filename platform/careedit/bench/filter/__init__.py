"""`careedit bench filter`: whether previews and a judge earn their steps, on scenes with exact truth."""

from careedit.bench.filter.measure import FilterBench
from careedit.bench.filter.plan import FilterPlan
from careedit.bench.filter.run import GOALS, bench_filter
from careedit.bench.filter.table import SceneTable, TableCache

__all__ = ["GOALS", "FilterBench", "FilterPlan", "SceneTable", "TableCache", "bench_filter"]
