"""One run of the simulation: a workload through the pools of a layout."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import simpy

from careedit_deployments.deployment import Scaling
from careedit_deployments.planning.model import Layout, Profile, Workload
from careedit_deployments.planning.simulate import Edit, Pool, Process, travel

ALL = "shared"
"""Name of the pool in a shared layout."""


@dataclass(frozen=True)
class Outcome:
    """Result of a run."""

    seconds: tuple[float, ...]
    """Seconds from arrival to answer of each answered edit, without the warm-up, sorted."""
    refused: int
    """Number of rejected edits, without the warm-up."""
    gpu_seconds: float
    """Paid GPU seconds of the whole run, judges included."""
    edits: int
    """Number of answered edits in the whole run."""
    busy: float
    """Utilisation of the editing replicas, from 0 to 1."""
    duration_s: float
    """Simulated seconds of the whole run."""

    def quantile(self, q: float) -> float:
        """The q-quantile of `seconds`: the value at rank ceil(q n)."""
        return self.seconds[min(len(self.seconds) - 1, max(0, -(-int(q * 1e9) * len(self.seconds) // 10**9) - 1))]


def pools_of(workload: Workload, layout: Layout) -> dict[str, float]:
    """The pools of a layout, each with its share of the edits."""
    total = sum(workload.experts.values())
    if layout == "shared":
        return {ALL: 1.0}
    return {expert: weight / total for expert, weight in workload.experts.items()}


def seconds_alone(
    profile: Profile, layout: Layout, steps: int, filter_: Any, images: int = 1
) -> tuple[tuple[float, ...], int]:
    """Seconds of an edit alone on a replica, before and after its judgements, and the number of judgements.

    The images of the edit are rows of one batch. Each has its own early filter.
    """
    step = profile.step_s * (profile.shared_ratio if layout == "shared" else 1.0)
    before = profile.overhead_s + profile.encode_s
    decode = images * profile.decode_s
    if filter_ is None:
        return (before + steps * step * profile.slowdown(images) + decode,), 0
    m, rows = min(filter_.preview_steps, steps), filter_.candidates * images
    previews = m * step * profile.slowdown(rows) + rows * profile.decode_s
    return (before + previews, (steps - m) * step * profile.slowdown(images) + decode), rows


def edits_of(workload: Workload, profile: Profile, layout: Layout, seed: int) -> Iterator[tuple[float, Edit]]:
    """An endless Poisson stream of edits, each with the seconds since the previous one."""
    draw = random.Random(seed)
    pools = pools_of(workload, layout)
    steps, often = list(workload.steps), list(workload.steps.values())
    while True:
        gap = draw.expovariate(workload.rate)
        pool = draw.choices(list(pools), list(pools.values()))[0]
        filter_ = workload.filter if draw.random() < workload.filter_share else None
        work, judgements = seconds_alone(profile, layout, draw.choices(steps, often)[0], filter_)
        yield gap, Edit(pool, work, judgements)


def run(
    arrivals: Iterator[tuple[float, Edit]] | Sequence[tuple[float, Edit]],
    replicas: Mapping[str, int],
    profile: Profile,
    *,
    held: int = 1,
    queue: int | None = None,
    judges: int = 0,
    scaling: Scaling | None = None,
    edits: int = 4000,
    warm_up: int = 400,
    seed: int = 0,
) -> Outcome:
    """Send `warm_up` edits, which are not counted in `seconds`, and then `edits` edits through the pools in `replicas`.

    `arrivals` yields the seconds since the previous edit, and the edit. With `scaling` the pools grow and shrink.
    """
    env = simpy.Environment()
    draw = random.Random(seed + 1)
    pools = {
        name: Pool(env, count, held=held, slowdown=profile.slowdown, queue=queue, draw=draw)
        for name, count in replicas.items()
    }
    judge_pool = Pool(env, judges, held=1, draw=draw) if judges else None
    stream = list(islice(arrivals, warm_up + edits))
    if scaling is not None:
        each = sum(sum(edit.work) for _, edit in stream) / len(stream)
        for pool in pools.values():
            env.process(pool.scale(scaling, profile.start_s, each))
    env.run(until=env.process(_feed(env, stream, pools, judge_pool, profile.judge_s)))
    for pool in (*pools.values(), *([judge_pool] if judge_pool else [])):
        pool.close()
    counted = [edit for _, edit in stream[warm_up:]]
    answered = sorted(edit.left - edit.came for edit in counted if edit.left is not None)
    paid = sum(pool.paid_s for pool in pools.values())
    judging = judge_pool.paid_s if judge_pool else 0.0
    return Outcome(
        seconds=tuple(answered),
        refused=sum(edit.refused for edit in counted),
        gpu_seconds=paid * profile.gpus + judging * profile.judge_gpus,
        edits=sum(edit.left is not None for _, edit in stream),
        busy=sum(pool.busy_s for pool in pools.values()) / paid,
        duration_s=env.now,
    )


def _feed(
    env: simpy.Environment,
    stream: Sequence[tuple[float, Edit]],
    pools: Mapping[str, Pool],
    judges: Pool | None,
    judge_s: float,
) -> Process:
    under_way = []
    for gap, edit in stream:
        yield env.timeout(gap)
        under_way.append(env.process(travel(env, edit, pools[edit.pool], judges, judge_s)))
    yield env.all_of(under_way)
