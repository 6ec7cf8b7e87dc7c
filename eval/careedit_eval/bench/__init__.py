"""Measurements of the evaluation itself: how much its pipeline costs beside the edits and scores that it makes."""

from careedit_eval.bench.document import FULL, GOALS, QUICK, Size, bench_eval

__all__ = ["FULL", "GOALS", "QUICK", "Size", "bench_eval"]
