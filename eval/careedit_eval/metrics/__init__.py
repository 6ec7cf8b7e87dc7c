"""Metrics: each one small, each with its whole identity, none with a number that it did not measure."""

from __future__ import annotations

from careedit_eval.metrics.aggregate import Mean, by_kind, macro, micro
from careedit_eval.metrics.base import ScoreItem
from careedit_eval.metrics.load import find_metric, load_metric, metric_names

__all__ = ["Mean", "ScoreItem", "by_kind", "find_metric", "load_metric", "macro", "metric_names", "micro"]
