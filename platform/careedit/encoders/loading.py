"""What loading a model has in common, whichever library does it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from careedit.errors import ExpertError


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Without log lines, and with any error as one `ExpertError`; `what` is the model in its sentence: "vision model 'x'"."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    except Exception as error:  # files, hub, configuration: each raises its own kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ExpertError(f"The {what} cannot be loaded ({reason}); check its name, files and network.") from error
    finally:
        logging.disable(before)
