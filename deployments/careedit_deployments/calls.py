"""Calls of a deployment through its handle: when to call again, and careedit's errors for Ray's."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import NoReturn

from grpc import RpcError
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
)

from careedit.errors import CancelledError, CareEditError
from careedit_deployments.errors import OverloadedError, ServingError, UnavailableError

REPLICA_LOST = (
    RayActorError,
    WorkerCrashedError,
    NodeDiedError,
    ObjectLostError,
    LocalRayletDiedError,
    OutOfMemoryError,
    ReplicaUnavailableError,
    RpcError,
)
"""Errors of a call whose replica is lost; another replica may do the work again. What a replica itself raises is never an
`RpcError`: Serve sends it as an answer, and an `RpcError` says that the connection broke."""
PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds before the second attempt, and the maximum between two attempts."""


async def attempts(deadline: float) -> AsyncIterator[int]:
    """Yield 0, 1, 2, ... until the deadline, in monotonic time, with growing pauses between them."""
    attempt, pause = 0, PAUSE
    while time.monotonic() < deadline:
        yield attempt
        attempt += 1
        await asyncio.sleep(min(pause * random.uniform(0.5, 1.5), max(0.0, deadline - time.monotonic())))
        pause = min(2 * pause, LONGEST_PAUSE)


def raise_serving_error(error: BaseException, who: str) -> NoReturn:
    """Raise careedit's error for one of Ray's; careedit's own errors, raised in a replica, are raised as they are."""
    if isinstance(error, TaskCancelledError | RequestCancelledError):
        raise CancelledError("The request was cancelled, because its client left.") from None
    if isinstance(error, BackPressureError):
        raise OverloadedError(f"{who}'s queue is full; try again in a moment.") from None
    if isinstance(error, DeploymentUnavailableError):
        raise UnavailableError(f"{who} could not be started; its logs say why.") from None
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, CareEditError):
            raise cause from None
        raise ServingError(f"{who} failed ({type(cause).__name__}); the replica's log says more.") from error
    raise UnavailableError(f"{who} does not answer ({type(error).__name__}); try again soon.") from error
