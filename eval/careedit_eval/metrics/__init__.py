"""Metrics: each states its whole identity, and none returns a number that it did not measure."""

from careedit_eval.metrics.base import ScoreItem, measure_image
from careedit_eval.metrics.load import find_metric, load_metric, metric_names

__all__ = ["ScoreItem", "find_metric", "load_metric", "measure_image", "metric_names"]
