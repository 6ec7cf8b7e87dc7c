"""The work of timing: both sets stay loaded in one process and take turns; only seconds are kept."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from careedit.errors import sentence
from careedit_eval.alignment import load_pictures
from careedit_eval.editors import EditFailed, EditWork, SampleEditor, make_editor
from careedit_eval.editors.local import keep_open
from careedit_eval.records import Sample
from careedit_eval.suite import Arm
from careedit_eval.timing import TimedSample

logger = logging.getLogger(__name__)

SEED = 2_000_003
"""The first seed of a timing. No suite uses it, so no service has a cached answer for it."""


@dataclass(frozen=True)
class TimingTask:
    """One sample that both sets edit."""

    pair: int
    """The index of the pair of sets."""
    a: Arm
    """The arm of the set in use."""
    b: Arm
    """The arm of the set that may replace it."""
    sample: Sample
    """The sample that both sets edit."""
    benchmark: str
    """The benchmark that the sample is from."""
    rounds: int
    """How often it is edited in the order A B B A."""


@dataclass(frozen=True)
class Timed:
    """The result of a task."""

    pair: int
    """The index of the pair of sets."""
    sample: TimedSample
    """The sample with the seconds of both sets."""
    machine: dict[str, str]
    """The kind of machine that measured."""


class TimingWorker:
    """Times tasks one after the other. Both sets first edit the first sample of a pair without measurement, to warm up."""

    def __init__(self) -> None:
        keep_open(2)
        self._arms: tuple[Arm, Arm] | None = None
        self._editors: tuple[SampleEditor, SampleEditor] | None = None
        self._failures: list[str] = []

    def __call__(self, tasks: Sequence[TimingTask]) -> list[Timed]:
        """The seconds of every task."""
        return [self._time(task) for task in tasks]

    def _time(self, task: TimingTask) -> Timed:
        timed = partial(TimedSample, benchmark=task.benchmark, sample_id=task.sample.id, load=load())
        try:
            loaded = load_pictures(task.sample)
            mask = loaded.mask if task.sample.mask_given else None

            def seconds(editor: SampleEditor, seed: int) -> float:
                work = EditWork(
                    task.sample.id, loaded.source, task.sample.instruction, mask, loaded.references, None, seed
                )
                return seconds_of(editor, work)

            first, second = self._ready(task, seconds)
            a: list[float] = []
            b: list[float] = []
            for turn in range(task.rounds):
                for side, editor, seed in ((a, first, 0), (b, second, 0), (b, second, 1), (a, first, 1)):
                    side.append(seconds(editor, SEED + 1 + 2 * turn + seed))
            found = timed(seconds_a=tuple(a), seconds_b=tuple(b))
        except Exception as error:
            logger.debug("timing of %s failed", task.sample.id, exc_info=True)
            found = timed(error=sentence(error))
        return Timed(task.pair, found, machine_of(task.a, task.b))

    def _ready(
        self, task: TimingTask, seconds: Callable[[SampleEditor, int], float]
    ) -> tuple[SampleEditor, SampleEditor]:
        """Both editors after a warm-up. After two failed warm-ups, no further sample is tried."""
        if self._arms != (task.a, task.b):
            self._arms, self._editors, self._failures = (task.a, task.b), None, []
        if len(self._failures) == 2:
            raise EditFailed(self._failures[-1])
        if self._editors is None:
            editors = make_editor(task.a), make_editor(task.b)
            for editor in editors:
                try:
                    seconds(editor, SEED)
                except Exception as error:
                    self._failures.append(sentence(error))
                    raise
            self._editors = editors
        return self._editors


def seconds_of(editor: SampleEditor, work: EditWork) -> float:
    """The seconds of one edit as its editor reports them, else by the clock of this process."""
    started = time.perf_counter()
    edited = editor.edit(work)
    passed = time.perf_counter() - started
    stated = edited.seconds
    return passed if stated is None or stated <= 0 else stated


def load() -> float | None:
    """The load average over one minute; None if the system does not report it."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def machine_of(*arms: Arm) -> dict[str, str]:
    """The processor, its cores, and the device of each set, without anything that identifies the machine."""
    found = {"cpu": _cpu(), "cores": str(cores())}
    for arm in arms:
        found[f"device of {arm.name}"] = _device(arm)
    return found


def cores() -> int:
    """The number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # no Linux
        return os.cpu_count() or 1


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _device(arm: Arm) -> str:
    if arm.kind != "set":
        return "a service" if arm.kind == "http" else "its editor's"
    if arm.device is None or not arm.device.startswith("cuda"):
        return f"{arm.device or 'cpu'}, {arm.threads} threads"
    import torch

    return str(torch.cuda.get_device_name(arm.device)) if torch.cuda.is_available() else arm.device
