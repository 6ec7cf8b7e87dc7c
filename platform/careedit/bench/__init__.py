"""Benchmarks of the engine and the judge: ratios within one run, which depend on the machine less than seconds do."""

from careedit.bench.engine import GOALS, Report, bench_engine, pairs_of
from careedit.bench.report import Goal
from careedit.bench.subject import UNTRAINED, Subject, load_subject, random_subject
from careedit.bench.timing import Comparison, Lap, compare

__all__ = [
    "GOALS",
    "UNTRAINED",
    "Comparison",
    "Goal",
    "Lap",
    "Report",
    "Subject",
    "bench_engine",
    "compare",
    "load_subject",
    "pairs_of",
    "random_subject",
]
