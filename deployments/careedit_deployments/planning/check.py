"""Compares the simulation with the served platform: both get the same trace. The profile is measured just before."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from careedit.errors import InputError
from careedit.experts import load_expert_set
from careedit.record import Record
from careedit.records import EditRequest
from careedit_deployments.app import set_reference
from careedit_deployments.bench.load import Edit, replay
from careedit_deployments.bench.servers import arm_of, in_folder, platform
from careedit_deployments.bench.trace import TraceRow
from careedit_deployments.bench.workload import BenchPlan, Workload
from careedit_deployments.client import Client
from careedit_deployments.config import ServeConfig
from careedit_deployments.planning.model import Profile
from careedit_deployments.planning.replay import Passage, passage, predict

ROUNDS = 12
"""Number of timed edits of each kind; the median counts."""
TOGETHER = 4
"""Rows of the batch whose step time is compared with that of a single row."""


class Check(Record):
    """The results of one trace, predicted and measured."""

    profile: Profile
    """The measured profile, which the simulation used."""
    requests: int
    """Number of requests in the trace."""
    predicted: Passage
    """Result according to the simulation."""
    measured: Passage
    """Result of the served platform."""


def check(
    config: ServeConfig, rows: Sequence[TraceRow], base: Profile, *, done: Callable[[], None] = lambda: None
) -> Check:
    """Serve `config` on this machine, measure, simulate, replay.

    `base` provides the numbers that are not measured. `done` is called three times. Raises `InputError` for a configuration
    with several arms.
    """
    arm = arm_of(config)[1]
    loaded = load_expert_set(set_reference(arm.expert_set))
    tail = arm.tail_of(loaded.names)
    load = Workload(BenchPlan(steps=loaded.spec.defaults.steps), loaded.names, loaded.spec.panel.size)
    requests = load.traced(rows)
    with tempfile.TemporaryDirectory(prefix="careedit-plan-") as folder:
        settings = in_folder(config, Path(folder))
        with platform(settings) as url, Client(url) as client:
            done()
            profile = measure(client.edit, load, tail, base)
            done()
            taken = replay(client.edit, requests, [row.arrival_s for row in rows])
            done()
    return Check(
        profile=profile,
        requests=len(rows),
        predicted=predict(rows, profile, config, load.experts, tail),
        measured=passage(rows, taken),
    )


def measure(edit: Edit, load: Workload, long_tail: Sequence[str], base: Profile) -> Profile:
    """The parts of an edit as a client measures them: alone, in a batch of `TOGETHER` rows, and on the shared pool."""
    own = next((one for one in load.experts if one not in long_tail), None)
    tail = next((one for one in load.experts if one in long_tail), None)
    if own is None:
        raise InputError("Every expert of the configuration is in its long tail; give one a pool of its own.")
    for expert in load.experts:
        edit(_by(load, expert, 0))  # warm up every replica before timing
    alone = [_timed(edit, _by(load, own, i)) for i in range(ROUNDS)]
    step = statistics.median(one["step"] for one in alone)
    many = statistics.median(_timed(edit, _by(load, own, i, n=TOGETHER))["step"] for i in range(ROUNDS)) / step
    shared = 1.0
    if tail is not None:
        shared = statistics.median(_timed(edit, _by(load, tail, i))["step"] for i in range(ROUNDS)) / step
    return Profile(
        **{
            **base.model_dump(),
            "name": "measured",
            "source": "measured in the same run",
            "step_s": step,
            "fixed": min(1.0, max(0.0, (TOGETHER - many) / (TOGETHER - 1))),
            "encode_s": statistics.median(one["prepare"] for one in alone),
            "decode_s": statistics.median(one["finish"] for one in alone),
            "overhead_s": max(0.0, statistics.median(one["rest"] for one in alone)),
            "shared_ratio": max(1.0, shared),
        }
    )


def _timed(edit: Edit, request: EditRequest) -> dict[str, float]:
    """Seconds of one step, of the stages before and after the steps, and outside the replica."""
    started = time.perf_counter()
    trace = edit(request).traces[0]
    whole = time.perf_counter() - started
    prepare, denoise, finish = (trace.seconds[stage] for stage in ("prepare", "denoise", "finish"))
    rest = whole - prepare - denoise - finish
    return {"prepare": prepare, "step": denoise / trace.steps, "finish": finish, "rest": rest}


def _by(load: Workload, expert: str, index: int, n: int = 1) -> EditRequest:
    (request,) = load.mixed(1000 + index, 1)  # other samples than those of the trace, because encodings are cached
    return request.model_copy(update={"expert": expert, "n": n})
