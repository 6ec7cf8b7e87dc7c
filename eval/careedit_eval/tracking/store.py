"""Which MLflow is talked to, and its failures as sentences."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from careedit_eval.errors import TrackingError

VARIABLE = "MLFLOW_TRACKING_URI"
"""MLflow's own variable: a server's address, or "sqlite:///FILE"."""
QUICK = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""What MLflow is told where nobody else told it: a server that is down must not hold an evaluation for minutes."""


def default_uri(workspace: Path) -> str:
    """`MLFLOW_TRACKING_URI`, or a SQLite file in the folder of evaluations."""
    return os.environ.get(VARIABLE) or f"sqlite:///{(workspace / 'mlflow.db').resolve()}"


@contextmanager
def tracking(uri: str) -> Iterator[None]:
    """Talk to `uri` meanwhile; whatever MLflow raises becomes a `TrackingError`."""
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError as error:
        raise TrackingError("MLflow is not installed; run pip install 'careedit[eval]'.") from error
    import requests
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("mlflow", "alembic"):  # what they have to say of their own tables is nobody's result
        logging.getLogger(name).setLevel(logging.WARNING)
    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        yield
    except (MlflowException, SQLAlchemyError, OSError, requests.RequestException) as error:
        reason = " ".join(str(error).split())[:300]
        raise TrackingError(
            f"MLflow at {uri.partition('@')[2] or uri} failed ({reason}); results are kept, log them with `careedit eval log`."
        ) from error
    finally:
        mlflow.set_tracking_uri(before)
        mlflow.set_registry_uri(None)  # type: ignore[arg-type]
