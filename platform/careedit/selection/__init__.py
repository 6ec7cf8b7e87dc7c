"""The early filter: which of several starting noises is worth finishing."""

from careedit.selection.base import Look, Plan, Strategy
from careedit.selection.judging import Judge
from careedit.selection.plan import STRATEGIES, make_plan
from careedit.selection.race import JudgeFailed, Race, race
from careedit.selection.run import Selected, resume, select
from careedit.selection.slot import Slot, batches

__all__ = [
    "STRATEGIES",
    "Judge",
    "JudgeFailed",
    "Look",
    "Plan",
    "Race",
    "Selected",
    "Slot",
    "Strategy",
    "batches",
    "make_plan",
    "race",
    "resume",
    "select",
]
