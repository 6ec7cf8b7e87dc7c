"""MLflow: evaluations as runs, expert sets as registered models; in the driver only, once per evaluation."""

from careedit_eval.tracking.log import TRACKED_FILE, log_run
from careedit_eval.tracking.registry import CHALLENGER, CHAMPION, promote, register_set, roll_back, set_location
from careedit_eval.tracking.store import default_uri, tracking

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "TRACKED_FILE",
    "default_uri",
    "log_run",
    "promote",
    "register_set",
    "roll_back",
    "set_location",
    "tracking",
]
