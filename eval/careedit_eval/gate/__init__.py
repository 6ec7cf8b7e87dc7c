"""Whether a set is still good enough: non-inferiority against a frozen baseline, and a verdict with reasons."""

from careedit_eval.gate.baseline import Baseline, freeze, load_baseline
from careedit_eval.gate.check import Check, Verdict, judge_run

__all__ = ["Baseline", "Check", "Verdict", "freeze", "judge_run", "load_baseline"]
