"""`careedit eval claims`: what the papers claim about routed experts, tested on an expert set in the drawn world."""

from careedit_tiny.evaluation.claims.activation import ACTIVATION
from careedit_tiny.evaluation.claims.claim import Claim, Condition, Figure, Finding, NotMeasuredError, Verdict, decide
from careedit_tiny.evaluation.claims.filtering import EARLY_FILTER
from careedit_tiny.evaluation.claims.findings import measure_claims
from careedit_tiny.evaluation.claims.setting import Setting
from careedit_tiny.evaluation.claims.trained import EXTENSION_CLAIM, FORGETTING, INTERFERENCE_CLAIM
from careedit_tiny.evaluation.claims.words import IDENTITY, INFEASIBLE, PHRASING, REFERENCE

CLAIMS: dict[int, Claim] = {
    one.id: one
    for one in (
        FORGETTING,
        INTERFERENCE_CLAIM,
        EXTENSION_CLAIM,
        IDENTITY,
        PHRASING,
        INFEASIBLE,
        REFERENCE,
        EARLY_FILTER,
        ACTIVATION,
    )
}
"""Every claim by its number."""

__all__ = [
    "CLAIMS",
    "Claim",
    "Condition",
    "Figure",
    "Finding",
    "NotMeasuredError",
    "Setting",
    "Verdict",
    "decide",
    "measure_claims",
]
