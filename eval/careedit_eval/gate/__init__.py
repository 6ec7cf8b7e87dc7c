"""Whether a set is still good enough: non-inferiority against a frozen baseline, and a verdict with reasons."""

from careedit_eval.gate.baseline import Baseline, freeze, load_baseline
from careedit_eval.gate.check import judge_run
from careedit_eval.gate.verdict import EXIT_CODES, Check, Outcome, Verdict, outcome_of

__all__ = [
    "EXIT_CODES",
    "Baseline",
    "Check",
    "Outcome",
    "Verdict",
    "freeze",
    "judge_run",
    "load_baseline",
    "outcome_of",
]
