"""`careedit eval quality`: how well an expert set edits, which expert edits best, and whether routing pays, on drawn scenes."""

from careedit_tiny.evaluation.quality.measure import Bench, Task
from careedit_tiny.evaluation.quality.outcomes import Outcome, judge_outcome
from careedit_tiny.evaluation.quality.plan import Plan
from careedit_tiny.evaluation.quality.run import GOALS, QualityReport, Shown, measure_quality
from careedit_tiny.evaluation.quality.subject import Subject, load_subject

__all__ = [
    "GOALS",
    "Bench",
    "Outcome",
    "Plan",
    "QualityReport",
    "Shown",
    "Subject",
    "Task",
    "judge_outcome",
    "load_subject",
    "measure_quality",
]
