"""How many replicas an expert needs: by the seconds of denoising that wait, not by the number of requests.

One edit of 50 steps and 16 images is worth hundreds of small ones; requests alone would not tell. Ray's controller runs
`StepSecondsPolicy`; Ray itself adds bounds and the delays of `upscale_delay_s` and `downscale_delay_s`. The controller gets
this module by value, so it imports nothing of careedit.
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
    least: int,
    most: int,
) -> int:
    """Replicas that leave each at most `target_seconds` of stepping to do, between `least` and `most`.

    `queued_seconds` and `seconds_per_edit` hold a number per replica that has told one. Requests that wait for any replica
    count with the mean of `seconds_per_edit`; while nobody knows it, a request counts as a whole target, so that the first
    load is not missed. Whatever runs keeps one replica.
    """
    known = [seconds for seconds in seconds_per_edit if seconds > 0]
    each = sum(known) / len(known) if known else target_seconds
    total = sum(queued_seconds) + waiting_requests * each
    wanted = ceil(total / target_seconds - 1e-9)
    if running_requests > 0 or waiting_requests > 0:
        wanted = max(wanted, 1)
    return max(least, min(wanted, most))


class StepSecondsPolicy:
    """Ray Serve's autoscaling policy for expert deployments."""

    def __init__(self, target_seconds: float) -> None:
        self.target_seconds = target_seconds
        """Seconds of stepping that one replica should have before it."""

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The replicas that are wanted now, and the state that Ray keeps for the delays."""
        metrics = ctx.raw_metrics or {}
        wanted = replicas_needed(
            queued_seconds=_latest(metrics.get(QUEUED_SECONDS, {})),
            seconds_per_edit=_latest(metrics.get(SECONDS_PER_EDIT, {})),
            waiting_requests=float(ctx.total_queued_requests or 0),
            running_requests=float(ctx.total_running_requests),
            target_seconds=self.target_seconds,
            least=ctx.capacity_adjusted_min_replicas,
            most=ctx.capacity_adjusted_max_replicas,
        )
        return wanted, dict(ctx.policy_state)


def _latest(series: Mapping[Any, Sequence[Any]]) -> list[float]:
    """The last value of each replica: a mean over the window would still see work that is done."""
    return [float(points[-1].value) for points in series.values() if points]
