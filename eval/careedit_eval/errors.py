"""The errors of evaluation, within careedit's one tree; each message is a sentence that says what to do.

CareEditError
├── InputError
│   └── BenchmarkError    a data set that is missing, damaged or in another layout            (CLI exit 2)
├── MetricError           a metric that cannot be had, or cannot measure this edit
├── RunError              an evaluation that had to stop; what was finished is kept              (CLI exit 1)
├── VotesError            the database of votes does not answer; a vote that was not confirmed is not stored (CLI exit 1)
└── TrackingError         MLflow is down or refuses; the run's folder is whole                   (CLI exit 1)
"""

from careedit.errors import CareEditError, InputError


class BenchmarkError(InputError):
    """A data set that is missing, damaged or in another layout than its benchmark reads."""


class MetricError(CareEditError):
    """A metric that cannot be had, or cannot measure this edit."""


class RunError(CareEditError):
    """An evaluation that had to stop; what was finished is kept, and the same command goes on from there."""


class TrackingError(CareEditError):
    """MLflow is down or refuses; the results are kept and can be logged later."""


class VotesError(CareEditError):
    """The database of votes does not answer; a vote that was not confirmed is not stored."""


def reason_of(error: BaseException) -> str:
    """The message of an exception, in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
