"""The MLflow that is used, and its failures as sentences."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

from careedit_eval.errors import TrackingError

Item = TypeVar("Item")

VARIABLE = "MLFLOW_TRACKING_URI"
"""MLflow's own variable: the address of a server, or "sqlite:///FILE"."""
QUICK = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",  # MLflow looks for git, which a container need not have
}
"""Settings of MLflow that apply unless the environment has others: a server that is down must not delay an evaluation for
minutes, and MLflow must not print."""


def default_uri(workspace: Path) -> str:
    """The value of `MLFLOW_TRACKING_URI`, or a SQLite file in the folder of evaluations."""
    return os.environ.get(VARIABLE) or f"sqlite:///{(workspace / 'mlflow.db').resolve()}"


@contextmanager
def tracking(uri: str) -> Iterator[None]:
    """Use the MLflow at `uri` within the block. Any error of MLflow becomes a `TrackingError`."""
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError as error:
        raise TrackingError("MLflow is not installed; run pip install 'careedit[eval]'.") from error
    import requests
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("mlflow", "alembic"):  # what they log about their own tables is not a result
        logging.getLogger(name).setLevel(logging.WARNING)
    before = {name: os.environ.get(name) for name in (VARIABLE, "MLFLOW_REGISTRY_URI")}
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
        for forget in (mlflow.set_tracking_uri, mlflow.set_registry_uri):
            forget(None)  # type: ignore[arg-type]
        # MLflow writes its settings into the environment, where `default_uri` would find it next time.
        for variable, known in before.items():
            os.environ.pop(variable, None)
            os.environ.update({} if known is None else {variable: known})


def experiment_of(name: str) -> str:
    """The id of the experiment, which is created if it does not exist. Call it within `tracking`.

    With a SQLite file, artifacts are stored next to it; MLflow's default is the current folder.
    """
    import mlflow

    known, uri = mlflow.get_experiment_by_name(name), mlflow.get_tracking_uri()
    if known is not None:
        return str(known.experiment_id)
    beside = uri.startswith("sqlite:///")
    place = (Path(uri.removeprefix("sqlite:///")).parent / "mlflow-artifacts").as_uri() if beside else None
    return str(mlflow.create_experiment(name, artifact_location=place))


def parts(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of at most `size`: one request each."""
    walk = iter(items)
    while some := list(islice(walk, size)):
        yield some
