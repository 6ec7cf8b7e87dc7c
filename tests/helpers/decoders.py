"""Faulty replacements of the decoding function, which a decoder process imports by name."""

from __future__ import annotations

import os
import time
from typing import Any

from careedit_deployments.edits.processes import prepare


def crash(*_: Any) -> None:
    """End the process as a fault in a decoder would."""
    os._exit(11)


def hang(*_: Any) -> None:
    """Decode until the process is ended."""
    time.sleep(600)


def spin(*_: Any) -> None:
    """Use CPU without end, although less than a second of it is allowed."""
    prepare(0)
    while True:
        pass
