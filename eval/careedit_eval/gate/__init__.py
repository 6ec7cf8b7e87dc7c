"""Whether a set is still good enough: non-inferiority against a frozen baseline, and a verdict with reasons."""

from careedit_eval.gate.baseline import Baseline, freeze, load_baseline
from careedit_eval.gate.check import candidate_of, judge_run, sides_of
from careedit_eval.gate.verdict import EXIT_CODES, Check, Outcome, Verdict, advice_of, outcome_of

__all__ = [
    "EXIT_CODES",
    "Baseline",
    "Check",
    "Outcome",
    "Verdict",
    "advice_of",
    "candidate_of",
    "freeze",
    "judge_run",
    "load_baseline",
    "outcome_of",
    "sides_of",
]
