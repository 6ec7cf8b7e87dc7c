"""The errors of evaluation, within careedit's one tree; each message is a sentence that says what to do.

CareEditError
├── InputError
│   └── BenchmarkError    a data set that is missing, damaged or laid out in another way     (CLI exit 2)
└── MetricError           a metric that cannot be had, or cannot measure this edit
"""

from careedit.errors import CareEditError, InputError


class BenchmarkError(InputError):
    """A data set that is missing, damaged or laid out in another way than its benchmark reads."""


class MetricError(CareEditError):
    """A metric that cannot be had, or cannot measure this edit."""
