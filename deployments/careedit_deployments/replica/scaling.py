"""Number of replicas of an expert, by seconds of queued denoising instead of by requests.

One edit of 50 steps and 16 images can cost as much as hundreds of small ones. Ray's controller runs `StepSecondsPolicy`; Ray
itself applies bounds and the delays `upscale_delay_s` and `downscale_delay_s`. The controller gets this module by value, so it
imports nothing of careedit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

QUEUED_SECONDS = "queued_step_seconds"
"""A replica's own metric: estimated seconds of stepping that its edits still need."""
SECONDS_PER_EDIT = "step_seconds_per_edit"
"""A replica's own metric: estimated seconds of stepping that one more edit brings."""


def replicas_needed(
    *,
    queued_seconds: Sequence[float],
    seconds_per_edit: Sequence[float],
    waiting_requests: float,
    running_requests: float,
    target_seconds: float,
    minimum: int,
    maximum: int,
) -> int:
    """Number of replicas, between `minimum` and `maximum`, that leaves each at most `target_seconds` of stepping.

    `queued_seconds` and `seconds_per_edit` have one number per replica that has reported. A request that waits for a
    replica counts with the mean of `seconds_per_edit`; while that is unknown, it counts as `target_seconds`, so that the
    first load starts a replica. As long as anything runs or waits, the result is at least 1.
    """
    known = [seconds for seconds in seconds_per_edit if seconds > 0]
    each = sum(known) / len(known) if known else target_seconds
    total = sum(queued_seconds) + waiting_requests * each
    wanted = ceil(total / target_seconds - 1e-9)
    if running_requests > 0 or waiting_requests > 0:
        wanted = max(wanted, 1)
    return max(minimum, min(wanted, maximum))


class StepSecondsPolicy:
    """Ray Serve's autoscaling policy for expert deployments."""

    def __init__(self, target_seconds: float) -> None:
        self.target_seconds = target_seconds
        """Target of queued stepping per replica, in seconds."""

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The number of replicas wanted now, and the state that Ray keeps for the delays."""
        metrics = ctx.raw_metrics or {}
        wanted = replicas_needed(
            queued_seconds=_latest(metrics.get(QUEUED_SECONDS, {})),
            seconds_per_edit=_latest(metrics.get(SECONDS_PER_EDIT, {})),
            waiting_requests=float(ctx.total_queued_requests or 0),
            running_requests=float(ctx.total_running_requests),
            target_seconds=self.target_seconds,
            minimum=ctx.capacity_adjusted_min_replicas,
            maximum=ctx.capacity_adjusted_max_replicas,
        )
        return wanted, dict(ctx.policy_state)


def _latest(series: Mapping[Any, Sequence[Any]]) -> list[float]:
    """The last value of each replica: a mean over the window would include finished work."""
    return [float(points[-1].value) for points in series.values() if points]
