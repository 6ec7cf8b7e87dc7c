"""The measurements of `careedit bench gpu`, one case after the other within a time budget (docs/benchmarks.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from careedit.bench.engine import one_by_one
from careedit.bench.gpu.bases import Base, build_base
from careedit.bench.gpu.document import GOALS, make_document
from careedit.bench.subject import example_job
from careedit.bench.timing import compare, measure
from careedit.editing import EditJob, Engine, warm_up
from careedit.editing.quantisation import quantise
from careedit.errors import CareEditError
from careedit.experts import MergedApplier, NoExperts, SharedApplier
from careedit.experts.applier import Inputs, run_transformer
from careedit.experts.appliers import RoutedLinear
from careedit.experts.slots import SlotApplier, SlotLinear
from careedit.records import BASE, StepCache

__all__ = ["GOALS", "Settings", "bench_gpu"]

COMPILE_SECONDS = 90.0
"""Seconds that one compilation is expected to take, for the budget; it includes the warm-up of 1, 2 and all rows."""


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    family: str
    """The base, one of `careedit.bench.gpu.NAMES`."""
    reduced: bool = False
    """Whether the base is a small one of the same classes, and the compiler is off. Its seconds say nothing."""
    seconds: float = 480.0
    """Time budget of the whole run, in seconds; a case that would exceed it is left out."""
    panel: int = 1024
    """Length of a panel's side, in pixels."""
    batches: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of rows that are stepped together."""
    experts: int = 8
    """Number of experts in a mixed batch."""
    rank: int = 32
    """Rank of the experts, on every attention and feed-forward projection."""
    repeats: int = 3
    """Timed runs of each case; the median is reported."""

    @classmethod
    def small(cls, family: str, *, seconds: float) -> Settings:
        """The reduced form, which runs every case on a CPU within seconds."""
        return cls(family, reduced=True, seconds=seconds, panel=64, batches=(1, 2), experts=2, rank=2, repeats=1)


class NotMeasured(Exception):
    """A case cannot be measured here; the message says why."""


def bench_gpu(
    settings: Settings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    save: Callable[[dict[str, Any]], None] = lambda document: None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure every case that fits the budget and return the document.

    `save` gets the document after each case, so that a run that is cut keeps what it has; `log` gets one line per case. A
    case that fails is "not measured" with its reason.
    """
    run = _Run(settings, device, dtype, save, log)
    with torch.no_grad():
        for name, needs, case in run.plan():
            run.case(name, needs, case)
    return run.document()


class _Run:
    def __init__(self, settings: Settings, device: torch.device, dtype: torch.dtype, save: Any, log: Any) -> None:
        self.settings, self.device, self.dtype = settings, device, dtype
        self.save, self.log = save, log
        self.started = time.perf_counter()
        self.cases: dict[str, dict[str, Any]] = {}
        self._base: Base | None = None

    def plan(self) -> list[tuple[str, Callable[[], float], Callable[[], dict[str, Any]]]]:
        """The cases in their order: what the goals need first. Each has its estimated seconds once a step is known."""
        settings, most = self.settings, max(self.settings.batches)
        runs = settings.repeats + 1
        steps = partial(self._rows, runs * sum(settings.batches))
        mixed = partial(self._rows, runs * most)

        def with_compiling(needs: Callable[[], float]) -> float:
            return needs() + (0.0 if settings.reduced else COMPILE_SECONDS)

        def edits() -> float:
            return self._rows(2 * runs * self.edit_steps * self.branches) if self._base else 0.0

        return [
            ("peak", lambda: 5.0, self.peak),
            ("load", lambda: 10.0, self.load),
            ("steps", lambda: 10.0, self.steps),
            ("edit", edits, self.edit),
            ("merged", mixed, self.merged),
            ("slots", mixed, self.slots),
            ("compiled", partial(with_compiling, lambda: steps() + edits()), self.compiled),
            ("compiled_slots", partial(with_compiling, mixed), self.compiled_slots),
            ("peft_and_spans", lambda: 2 * mixed(), self.peft_and_spans),
            ("step_cache", lambda: self._rows(4 * 12), self.step_cache),
            ("fp8", lambda: 0.0, self.fp8),
        ]

    def case(self, name: str, needs: Callable[[], float], measured: Callable[[], dict[str, Any]]) -> None:
        """Run one case, unless it does not fit the budget, and save the document."""
        begun = time.perf_counter()
        left = self.settings.seconds - (begun - self.started)
        try:
            if name not in ("peak", "load") and self._base is None:
                raise NotMeasured("the base could not be built")
            if needs() > left:
                raise NotMeasured(f"it takes about {needs():.0f} s, and {max(0.0, left):.0f} s of the budget are left")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(self.device)
            entry = {"state": "measured", "reason": None, **measured()}
        except NotMeasured as reason:
            entry = {"state": "not measured", "reason": str(reason)}
        except (
            CareEditError,
            RuntimeError,
            ValueError,
            TypeError,
            OSError,
        ) as error:  # what kernels and compilers raise
            entry = {"state": "not measured", "reason": " ".join(str(error).split())[:300] or type(error).__name__}
        finally:
            if self._base is not None:
                _restore(self._base.family.transformer)
        entry |= {"took_s": time.perf_counter() - begun, "memory_gb": self._memory()}
        self.cases[name] = entry
        self.log(f"{time.perf_counter() - self.started:.0f} s: {name}: {entry['reason'] or 'measured'}")
        self.save(self.document())

    def document(self) -> dict[str, Any]:
        """The document as far as it is known."""
        names = [name for name, _, _ in self.plan()]
        return make_document(asdict(self.settings), self.cases, names, self.device, self.dtype)

    # ------------------------------------------------------------------ cases
    def peak(self) -> dict[str, Any]:
        """Products of large square matrices: the most that the device does in this number format."""
        side, times = (256, 2) if self.settings.reduced else (8192, 10)
        one, two = (torch.randn(side, side, device=self.device, dtype=self.dtype) for _ in range(2))

        def run() -> None:
            for _ in range(times):
                torch.mm(one, two)

        seconds = measure(run, repeats=self.settings.repeats, device=self.device)
        return {"side": side, "tflop_per_s": times * 2 * side**3 / seconds / 1e12}

    def load(self) -> dict[str, Any]:
        """Build the base and its experts on the device."""
        one = self.settings
        self._base = build_base(
            one.family, reduced=one.reduced, experts=one.experts, rank=one.rank, device=self.device, dtype=self.dtype
        )
        adapter = self._base.library.parameters(self._base.library.names[0])
        return {"transformer_parameters": self._base.shapes.count, "expert_parameters": adapter}

    def steps(self) -> dict[str, Any]:
        """One step without experts in batches, and its counted floating-point operations."""
        engine = self._plain()
        with FlopCounterMode(display=False) as counter:
            engine.step([engine.prepare(self._job(BASE))])
        return {"tflop_per_row": counter.get_total_flops() / 1e12, "step_s": self._by_batch(engine)}

    def edit(self) -> dict[str, Any]:
        """Whole edits: the own loop and the stock pipeline in turn, and the parts outside the steps."""
        engine = self._plain()
        state = engine.prepare(self._job(BASE, steps=1))
        engine.step([state])

        def encode() -> None:
            engine.cache.clear()
            engine.prepare(state.job)

        timed = partial(measure, repeats=self.settings.repeats, device=self.device)
        parts = {"encode_s": timed(encode), "decode_s": timed(partial(engine.finish, state))}
        return {**parts, **self._against_stock(engine)}

    def merged(self) -> dict[str, Any]:
        """A batch of one merged expert, and what it takes to merge another one."""
        first, second = islice(cycle(self.base.library.names), 2)
        applier = MergedApplier(self.base.family.transformer, self.base.library)
        with applier.lease([first, second]):
            swap = _swap(partial(applier.merge, first), partial(applier.merge, second))
            seconds = measure(swap, repeats=self.settings.repeats, device=self.device) / 2
            batch = self._seconds(Engine(self.base.family, applier), [first] * max(self.settings.batches))
        applier.merge(BASE)
        return {"batch_s": batch, "swap_s": seconds}

    def slots(self) -> dict[str, Any]:
        """A mixed batch with experts in slots, and what it takes to put another expert in a slot."""
        applier = SlotApplier(self.base.family.transformer, self.base.library)
        batch = self._mixed(applier)
        name = self.base.library.names[0]

        def swap() -> None:
            applier.evict(name)
            with applier.lease([name]):
                pass

        seconds = measure(swap, repeats=self.settings.repeats, device=self.device)
        return {"batch_s": batch, "swap_s": seconds, "expert_gb": applier.resident_bytes / len(applier.resident) / 1e9}

    def compiled(self) -> dict[str, Any]:
        """Steps and edits with compiled blocks; the stock pipeline has the same transformer."""
        applier = MergedApplier(self.base.family.transformer, self.base.library)
        seconds = self._compile(applier)
        engine = Engine(self.base.family, applier)
        return {"warm_up_s": seconds, "step_s": self._by_batch(engine), **self._against_stock(engine)}

    def compiled_slots(self) -> dict[str, Any]:
        """A mixed batch with experts in slots and compiled blocks."""
        applier = SlotApplier(self.base.family.transformer, self.base.library)
        seconds = self._compile(applier)
        return {"warm_up_s": seconds, "batch_s": self._mixed(applier)}

    def peft_and_spans(self) -> dict[str, Any]:
        """The same mixed batch by peft's `adapter_names`, and in spans."""
        applier = SharedApplier(self.base.family.transformer, self.base.library)
        spans = self._mixed(applier)
        return {"spans_s": spans, "peft_s": self._mixed(_PeftBatch(applier))}

    def step_cache(self) -> dict[str, Any]:
        """The steps of an edit with a step cache, and without one."""
        cache, engine = StepCache(), self._plain()
        steps = min(self.base.kind.steps, 12)
        if cache.evaluations(steps) == steps:
            raise NotMeasured(f"of {steps} steps nothing can be skipped")
        without = engine.prepare(self._job(BASE, steps=steps))
        cached = engine.prepare(replace(without.job, step_cache=cache))

        def run(state: Any) -> None:
            engine.advance([replace(state, evaluated=None)])

        found = compare(
            "steps with a step cache", partial(run, cached), "all steps", partial(run, without),
            repeats=1, device=self.device,
        )  # fmt: skip
        return {"steps": steps, "evaluations": cache.evaluations(steps), "ratio": found.ratio}

    def fp8(self) -> dict[str, Any]:
        """Steps with the weights of the blocks in 8-bit floating point. They stay so: it is the last case."""
        quantise(self.base.family.transformer, "fp8", self.device)
        return {"step_s": self._by_batch(self._plain())}

    # ------------------------------------------------------------------ what the cases share
    @property
    def base(self) -> Base:
        """The base; `case` has checked that there is one."""
        return cast(Base, self._base)

    @property
    def branches(self) -> int:
        """Rows of an edit's step."""
        return self.base.family.branches(self._job(BASE, guided=True))

    @property
    def edit_steps(self) -> int:
        """Steps of a whole edit: those of the released weights, at most eight."""
        return min(self.base.kind.steps, 2 if self.settings.reduced else 8)

    def _plain(self) -> Engine:
        return Engine(self.base.family, NoExperts(self.base.family.transformer))

    def _job(self, expert: str, *, steps: int | None = None, guided: bool = False) -> EditJob:
        """An edit of one row per step, unless `guided`. All edits have one text, so that no attention is masked."""
        single = self.base.family.guidance == "branches" and not guided
        job = example_job(0, expert, steps or self.base.kind.steps, side=self.settings.panel)
        return replace(job, guidance=1.0 if single else None)

    def _rows(self, count: float) -> float:
        """Estimated seconds of `count` rows, from the measured step of one row; 0 before it."""
        known = self.cases.get("steps", {}).get("step_s", {})
        return count * float(next(iter(known.values()), 0.0))

    def _seconds(self, engine: Engine, names: Sequence[str]) -> float:
        """Seconds of one step with a row for each name."""
        prepared = engine.prepare(self._job(BASE))
        states = [replace(prepared, job=replace(prepared.job, weights={name: 1.0})) for name in names]
        return measure(
            lambda: engine.step([replace(state) for state in states]),
            repeats=self.settings.repeats,
            device=self.device,
        )

    def _by_batch(self, engine: Engine) -> dict[str, float]:
        return {str(rows): self._seconds(engine, [BASE] * rows) for rows in self.settings.batches}

    def _mixed(self, applier: Any) -> float:
        names = self.base.library.names
        with applier.lease(names):
            rows = list(islice(cycle(names), max(self.settings.batches)))
            return self._seconds(Engine(self.base.family, applier), rows)

    def _against_stock(self, engine: Engine) -> dict[str, Any]:
        job = self._job(BASE, steps=self.edit_steps, guided=True)
        found = compare(
            "own loop", partial(one_by_one, engine, [job]), "stock pipeline", partial(self.base.stock, job),
            repeats=self.settings.repeats, device=self.device,
        )  # fmt: skip
        own, stock = found.seconds
        return {"edit_steps": job.steps, "edit_rows": self.branches, "edit_s": own, "stock_edit_s": stock}

    def _compile(self, applier: MergedApplier | SlotApplier) -> float:
        """Compile the blocks and warm them up; seconds."""
        torch._dynamo.reset()
        applier.compile(**({"disable": True} if self.settings.reduced else {}))
        engine, begun = Engine(self.base.family, applier), time.perf_counter()
        side = self.settings.panel
        warm_up(engine, self._job(BASE), [(side, side)], batch=max(self.settings.batches))
        return time.perf_counter() - begun

    def _memory(self) -> float | None:
        """The peak of this case in GB; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) / 1e9 if self.device.type == "cuda" else None


class _PeftBatch(NoExperts):
    """Experts as peft itself applies them to a mixed batch."""

    def __init__(self, loaded: SharedApplier) -> None:
        super().__init__(loaded.transformer)
        self.loaded: Any = loaded

    def velocity(self, rows: Sequence[str], inputs: Inputs) -> Tensor:
        names = [f"expert-{name}" for name in rows]
        with self.loaded._tuner.eval()._enable_peft_forward_hooks(adapter_names=names):
            return run_transformer(self.transformer, inputs)

    def lease(self, names: Any) -> Any:
        return self.loaded.lease(names)


def _swap(*changes: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        for change in changes:
            change()

    return run


def _restore(transformer: nn.Module) -> None:
    """The plain, uncompiled transformer: experts' layers are replaced by the base's."""
    for path, module in list(transformer.named_modules()):
        if isinstance(module, SlotLinear | RoutedLinear):
            transformer.set_submodule(path, module.base_layer)
    for module in transformer.modules():
        cast(Any, module)._compiled_call_impl = None
