"""`careedit eval filter`: whether previews and a judge are worth their steps, on drawn scenes."""

from careedit_tiny.evaluation.filter.measure import FilterBench, SceneTable
from careedit_tiny.evaluation.filter.plan import FilterPlan
from careedit_tiny.evaluation.filter.run import GOALS, measure_filter

__all__ = ["GOALS", "FilterBench", "FilterPlan", "SceneTable", "measure_filter"]
