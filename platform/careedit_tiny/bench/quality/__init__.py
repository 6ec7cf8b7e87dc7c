"""`careedit bench quality`: how well a set edits, who edits best, and whether routing pays, on scenes with exact truth."""

from careedit_tiny.bench.quality.goals import GOALS, QualityGoal, verdicts
from careedit_tiny.bench.quality.measure import Bench, Task
from careedit_tiny.bench.quality.outcomes import Outcome, OutcomeCache, judge_outcome
from careedit_tiny.bench.quality.plan import Plan
from careedit_tiny.bench.quality.run import QualityReport, Shown, bench_quality
from careedit_tiny.bench.quality.subject import Subject, load_subject

__all__ = [
    "GOALS",
    "Bench",
    "Outcome",
    "OutcomeCache",
    "Plan",
    "QualityGoal",
    "QualityReport",
    "Shown",
    "Subject",
    "Task",
    "bench_quality",
    "judge_outcome",
    "load_subject",
    "verdicts",
]
