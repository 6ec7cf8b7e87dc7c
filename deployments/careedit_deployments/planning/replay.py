"""A day's arrivals through autoscaled pools: what the settings of a `ServeConfig` would have made of it."""

from __future__ import annotations

import csv
from pathlib import Path

from careedit.errors import InputError
from careedit.records import MAX_STEPS, Record
from careedit_deployments.config import ServeConfig
from careedit_deployments.planning.model import Filter, Layout, Profile, Scaling
from careedit_deployments.planning.runs import ALL, run, seconds_alone
from careedit_deployments.planning.simulate import Edit

COLUMNS = ("at", "expert", "steps")
"""Header of a trace: seconds since its begin, in rising order; the expert; the denoising steps."""


class Arrival(Record):
    """One line of a trace."""

    at: float
    """Seconds since the trace's begin."""
    expert: str
    """Who edits."""
    steps: int
    """Denoising steps."""


class Replay(Record):
    """What came of a trace."""

    layout: str
    """merged or shared."""
    edits: int
    """Edits that were answered."""
    refused: int
    """Edits that were turned away because the queue was full."""
    p50: float
    """Median of the seconds from arrival to answer."""
    p95: float
    """95th percentile."""
    within: float
    """Part of all edits, refused ones included, that was answered within the objective."""
    gpu_hours: float
    """GPU hours that were paid for, starting replicas and judges included."""
    usd_per_1000: float
    """US dollars for 1,000 answered edits."""


def read_trace(path: Path) -> list[Arrival]:
    """The arrivals of a CSV file with the header `at,expert,steps`. Raises `InputError`, naming the line."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The trace {path} cannot be read ({error}); give another file.") from None
    rows = csv.reader(lines)
    if tuple(next(rows, ())) != COLUMNS:
        raise InputError(f"The trace {path} does not begin with {','.join(COLUMNS)}; give it that header.")
    found: list[Arrival] = []
    for number, row in enumerate(rows, 2):
        try:
            at, expert, steps = row
            arrival = Arrival(at=float(at), expert=expert, steps=int(steps))
        except ValueError:
            raise InputError(f"Line {number} of the trace {path} is not seconds, expert, steps; correct it.") from None
        if not (arrival.at >= (found[-1].at if found else 0) and 1 <= arrival.steps <= MAX_STEPS):
            raise InputError(f"Line {number} of {path} goes back in time or has no 1 to {MAX_STEPS} steps; correct it.")
        found.append(arrival)
    if not found:
        raise InputError(f"The trace {path} holds no arrivals; record some.")
    return found


def settings_of(config: ServeConfig) -> tuple[Layout, Scaling, int]:
    """How its expert deployments hold, queue and scale, and how many judges there are at least."""
    expert = config.expert.scaling
    scaling = Scaling(
        min_replicas=max(1, expert.min_replicas),
        max_replicas=expert.max_replicas,
        target_step_seconds=expert.target_step_seconds,
        upscale_delay_s=expert.upscale_delay_s,
        downscale_delay_s=expert.downscale_delay_s,
    )
    layout = Layout(held=config.expert.max_ongoing_requests, queue=config.expert.max_queued_requests)
    judges = 0 if config.scorer.backend == "none" else config.scorer.deployment.scaling.max_replicas
    return layout, scaling, judges


def replay(
    trace: list[Arrival],
    profile: Profile,
    layout: Layout,
    scaling: Scaling,
    *,
    filter_: Filter | None = None,
    judges: int = 0,
    slo: float,
    usd_per_hour: float,
    seed: int = 0,
) -> Replay:
    """Send a trace through pools that start at their fewest replicas and scale as Ray Serve would."""
    used = filter_ if judges else None
    arrivals, before = [], 0.0
    for one in trace:
        work, judgements = seconds_alone(profile, layout, one.steps, used)
        arrivals.append((one.at - before, Edit(one.expert if layout.kind == "merged" else ALL, work, judgements)))
        before = one.at
    pools = dict.fromkeys(sorted({edit.pool for _, edit in arrivals}), scaling.min_replicas)
    outcome = run(
        arrivals,
        pools,
        profile,
        held=layout.held,
        queue=layout.queue,
        judges=judges if used else 0,
        scaling=scaling,
        edits=len(arrivals),
        warm_up=0,
        seed=seed,
    )
    hours = outcome.gpu_seconds / 3600
    return Replay(
        layout=layout.kind,
        edits=outcome.edits,
        refused=outcome.refused,
        p50=outcome.quantile(0.5),
        p95=outcome.quantile(0.95),
        within=sum(seconds <= slo for seconds in outcome.seconds) / len(trace),
        gpu_hours=hours,
        usd_per_1000=1000 * hours * usd_per_hour / outcome.edits,
    )
