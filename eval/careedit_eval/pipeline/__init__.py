"""Editing and measuring: two stages, each "wanted minus present" by content keys, run in a loop or by Ray Data."""

from careedit_eval.pipeline.base import LocalRunner, Runner, Stage
from careedit_eval.pipeline.evaluate import Evaluation, Progress, evaluate
from careedit_eval.pipeline.store import Store

__all__ = ["Evaluation", "LocalRunner", "Progress", "Runner", "Stage", "Store", "evaluate"]
