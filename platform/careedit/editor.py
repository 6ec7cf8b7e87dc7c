"""`Editor`: an expert set that edits. From requests to pictures and traces, and from a trace back to its picture."""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import overload

import torch
from PIL import Image

from careedit.editing import EditJob, EditState, Engine, load_base
from careedit.errors import InputError, ReplayError
from careedit.experts import BASE, Application, ExpertSet, load_expert_set, make_applier, router_options
from careedit.images import decoding_notes, fit_panel, grow, image_sha256, refine_mask
from careedit.records import (
    MAX_SEED,
    EarlyFilter,
    EditRequest,
    EditResult,
    EditTrace,
    FilterTrace,
    RoutingDecision,
)
from careedit.routing import FixedRouter, build_router, features_of
from careedit.scoring import Scorer
from careedit.selection import Judge, Slot, batches, make_plan, resume, select

MAX_BATCH = 8
"""Images denoised together."""

OnStep = Callable[[int, int], None]
"""(steps done, steps in all) over all images of a call; raising from it abandons the call between two steps."""

_Made = tuple[Image.Image, EditTrace, tuple[Image.Image, ...]]
"""An image, its trace, and the previews of its early filter."""


class Editor:
    """Edits pictures with one expert set. Not thread-safe: one editor, one thread at a time."""

    def __init__(
        self,
        expert_set: ExpertSet,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        application: Application | None = None,
        byte_budget: int | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        spec = expert_set.spec
        self.expert_set = expert_set
        self.application: Application = application or spec.application
        device = _device(device)
        dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
        _ = expert_set.shapes  # says that the base is not the stated one before its weights are read
        base = load_base(
            expert_set.base_path,
            revision=spec.base.revision,
            max_sequence_length=spec.base.max_sequence_length,
            device=device,
            dtype=dtype,
        )
        applier = make_applier(base.transformer, expert_set, self.application, byte_budget=byte_budget)
        self.engine = Engine(base, applier)
        self.judge = None if scorer is None else Judge(scorer)
        self.router = build_router(
            spec.router.kind,
            experts=tuple(expert_set.manifests.values()),
            options=router_options(spec, expert_set.folder),
        )

    def route(self, request: EditRequest) -> RoutingDecision:
        """The experts that `edit` would use for this request, and why; nothing is edited."""
        features = features_of(request)
        if request.expert == "auto":
            return self.router.route(features, top_k=request.top_k or self.expert_set.spec.defaults.top_k)
        return FixedRouter(request.expert, tuple(self.expert_set.manifests.values())).route(features, top_k=1)

    @overload
    def edit(self, requests: EditRequest, *, on_step: OnStep | None = None) -> EditResult: ...
    @overload
    def edit(self, requests: Sequence[EditRequest], *, on_step: OnStep | None = None) -> list[EditResult]: ...
    def edit(
        self, requests: EditRequest | Sequence[EditRequest], *, on_step: OnStep | None = None
    ) -> EditResult | list[EditResult]:
        """Make the images of one request, or of several, denoised together in batches of up to `MAX_BATCH`.

        An image with an early filter is denoised alone, after a batch of its candidates. Every request is checked before
        any is edited. Raises `InputError` and its kin, `ExpertError` for an expert that cannot be loaded.
        """
        if isinstance(requests, EditRequest):
            return self.edit([requests], on_step=on_step)[0]
        slots = [slot for request in requests for slot in self.slots(request)]
        for slot in slots:
            self.engine.check(slot.job)
        made: dict[int, _Made] = {}
        total, done = sum(slot.plan.cost for slot in slots), 0
        for batch in batches(slots, MAX_BATCH):
            tick = None if on_step is None else _offset(on_step, done, total)
            made.update(zip((id(slot) for slot in batch), self._run(batch, tick), strict=True))
            done += sum(slot.plan.cost for slot in batch)
        remaining = iter(made[id(slot)] for slot in slots)
        results = []
        for request in requests:
            images, traces, previews = zip(*(next(remaining) for _ in range(request.n)), strict=True)
            results.append(EditResult(images=images, traces=traces, previews=previews))
        return results

    def replay(
        self,
        trace: EditTrace,
        *,
        image: Image.Image,
        mask: Image.Image | None = None,
        references: Sequence[Image.Image] = (),
    ) -> EditResult:
        """Make the image of a trace again, bit for bit, from the same pictures, expert set, device and number format.

        Rounding depends on the shapes of a batch, not on its other edits' content; so the batch is filled up with this
        edit, in the places and with the experts that its neighbours had. On a CPU it depends on the number of threads
        too, which is set as it was meanwhile. What an early filter chose stands; no judge is asked again.

        Raises `ReplayError` where something differs; another version of torch or another processor is a degradation in
        the new trace, since the image may still be the same.
        """
        self._check_replay(trace)
        request = EditRequest(
            image=image,
            instruction=trace.instruction,
            mask=mask,
            references=tuple(references),
            seed=trace.seed,
            steps=trace.steps,
            guidance=trace.guidance,
            expert=dict(trace.routing.weights),
            refine_mask=trace.refine_mask,
        )
        hashes = _hashes(request)
        if hashes != (trace.image_sha256, trace.mask_sha256, trace.reference_sha256):
            raise ReplayError("The image, mask or references are not the ones of the trace; give the same pictures.")
        slot = self.slots(request)[0]
        batch = [replace(slot.in_place_of(other), decision=trace.routing) for other in trace.batch]
        with _threads(trace.threads):
            result, again, _ = self._run(batch, chosen=trace.filter)[trace.slot]
        if again.runtime != trace.runtime:
            moved = f"replay: made with {trace.runtime}, again with {again.runtime}, so bits may differ"
            again = again.model_copy(update={"degradations": (*again.degradations, moved)})
        return EditResult(images=(result,), traces=(again,))

    def _check_replay(self, trace: EditTrace) -> None:
        base = self.engine.base
        here = {
            "expert_set_sha256": self.expert_set.sha256,
            "application": self.application,
            "device": base.device.type,
            "dtype": str(base.dtype).removeprefix("torch."),
        }
        for name, value in here.items():
            if getattr(trace, name) != value:
                raise ReplayError(
                    f"The trace was made with {name} {getattr(trace, name)!r}, this editor has {value!r}; "
                    "load the editor as it was."
                )

    def slots(self, request: EditRequest, decision: RoutingDecision | None = None) -> list[Slot]:
        """The images of a request, fitted to their panels and routed unless `decision` is given; nothing is edited.

        Raises `InputError`; `UnknownExpertError` for a decision on an expert that the set lacks.
        """
        started = time.perf_counter()
        if decision is None:
            decision = self.route(request)
        for name in set(decision.weights) - {BASE}:
            self.expert_set.manifest(name)
        spec = self.expert_set.spec
        mask = request.mask
        if mask is not None and request.refine_mask:
            # A little room around the object: its soft edge belongs to the edit.
            mask = grow(refine_mask(request.image, mask), max(1, min(mask.size) // 64))
        fit = fit_panel(request.image.size, spec.panel.size, spec.panel.fit, spec.panel.multiple)
        panel_mask = None if mask is None else fit.to_panel(mask)
        references = tuple(
            fit_panel(reference.size, spec.panel.size, spec.panel.fit, spec.panel.multiple).to_panel(reference)
            if spec.panel.fit == "letterbox"
            else reference.resize(fit.panel, Image.Resampling.LANCZOS)
            for reference in request.references
        )
        first = secrets.randbelow(2**32) if request.seed is None else request.seed
        steps = request.steps or spec.defaults.steps
        plan = make_plan(request.early_filter or EarlyFilter(strategy="none"), steps)
        if plan.looks and self.judge is None:
            raise InputError(
                "An early filter needs a judge; give the editor a scorer or leave early_filter out.",
                field="early_filter",
            )
        if first + request.n * plan.candidates - 1 > MAX_SEED:
            raise InputError(
                f"The seed {first} leaves no room for {request.n} images; give a smaller seed.", field="seed"
            )
        guidance = spec.defaults.guidance if request.guidance is None else request.guidance
        source, seconds = fit.to_panel(request.image), time.perf_counter() - started
        return [
            Slot(
                request,
                decision,
                fit,
                mask,
                EditJob(
                    source=source,
                    instruction=request.instruction,
                    seed=first + i,
                    steps=steps,
                    mask=panel_mask,
                    references=references,
                    guidance=guidance,
                    start=spec.defaults.start,
                    noise_scale=spec.defaults.noise_scale,
                    weights=decision.weights,
                ),
                seconds,
                plan,
                tuple(first + i + j * request.n for j in range(plan.candidates)),
            )
            for i in range(request.n)
        ]

    def _run(
        self,
        batch: Sequence[Slot],
        on_step: OnStep | None = None,
        *,
        chosen: FilterTrace | None = None,
    ) -> list[_Made]:
        """Denoise one batch from start to end; `chosen` is what the filter of a replayed edit had chosen."""
        clock = [time.perf_counter()]
        names = {name for slot in batch for name in slot.job.weights} - {BASE}
        total, done = sum(slot.plan.cost for slot in batch), 0
        previews: tuple[Image.Image, ...] = ()

        def stepped(count: int) -> None:
            nonlocal done
            done += count
            if on_step is not None:
                on_step(done, total)

        with self.engine.applier.lease(names):
            if chosen is not None:
                states = [resume(self.engine, batch[0].job, chosen)]
            elif batch[0].plan.looks:
                selected = select(self.engine, batch[0], self.judge, stepped)
                states, chosen, previews = [selected.state], selected.trace, selected.previews
            else:
                states = [self.engine.prepare(slot.job) for slot in batch]
            clock.append(time.perf_counter())
            while live := sum(not state.done for state in states):
                self.engine.step(states)
                stepped(live)
            clock.append(time.perf_counter())
            panels = self.engine.finish_many(states)
        pictures = [slot.picture(panel) for slot, panel in zip(batch, panels, strict=True)]
        clock.append(time.perf_counter())
        first = "prepare" if chosen is None else "filter"
        stages = dict(zip((first, "denoise", "finish"), (b - a for a, b in pairwise(clock)), strict=True))
        return [
            (picture, self.trace(batch, i, states[i], stages, chosen), previews) for i, picture in enumerate(pictures)
        ]

    def trace(
        self,
        batch: Sequence[Slot],
        index: int,
        state: EditState,
        stages: Mapping[str, float],
        chosen: FilterTrace | None,
        *,
        threads: int | None = None,
    ) -> EditTrace:
        """How image `index` of a batch was made, from its finished state.

        `stages` are seconds per stage after "route"; `threads` are torch's where the steps ran, None: as here.
        """
        slot = batch[index]
        degradations = [*decoding_notes((slot.request.image, *slot.request.references))]
        image_hash, mask_hash, reference_hashes = _hashes(slot.request)
        if state.prompt_truncated:
            degradations.append("instruction: longer than the base reads, its end was cut")
        if chosen is not None and chosen.degraded is not None:
            went_on = chosen.candidates[chosen.chosen].seed
            degradations.append(f"degraded: filter, {chosen.degraded}, so seed {went_on} went on")
        return EditTrace(
            expert_set=self.expert_set.name,
            expert_set_sha256=self.expert_set.sha256,
            instruction=slot.request.instruction,
            prompt=slot.job.prompt,
            image_sha256=image_hash,
            mask_sha256=mask_hash,
            reference_sha256=reference_hashes,
            routing=slot.decision,
            application=self.application,
            seed=state.job.seed,
            steps=slot.job.steps,
            guidance=state.guidance,
            refine_mask=slot.request.refine_mask,
            panel=slot.job.source.size,
            nfe=state.nfe,
            batch=tuple(other.batch_slot for other in batch),
            slot=index,
            device=self.engine.base.device.type,
            dtype=str(self.engine.base.dtype).removeprefix("torch."),
            runtime=_runtime(self.engine.base.device),
            threads=(threads or torch.get_num_threads()) if self.engine.base.device.type == "cpu" else None,
            seconds={"route": slot.route_seconds, **stages},
            degradations=tuple(degradations),
            filter=chosen,
        )


def load_editor(
    expert_set: str = "tiny",
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    application: Application | None = None,
    byte_budget: int | None = None,
    scorer: Scorer | None = None,
) -> Editor:
    """Load an expert set and its base: a name ("tiny"), a folder, or an fsspec address (`s3://`, `hf://`).

    `device` is by default a GPU where there is one; `dtype` by default float32 on a CPU and bfloat16 on a GPU.
    `application` ("merged" or "shared") and `byte_budget` (bytes of adapters held at once) override the set's own.
    `scorer` is the judge of an early filter.
    """
    return Editor(
        load_expert_set(expert_set),
        device=device,
        dtype=dtype,
        application=application,
        byte_budget=byte_budget,
        scorer=scorer,
    )


def _device(wanted: torch.device | str | None) -> torch.device:
    """The device to use; raises `InputError` for one that is not there."""
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has no kind of its own for this
        raise InputError(
            f"There is no device {str(wanted)!r} on this machine; use cpu, or a GPU such as cuda."
        ) from error
    return device


def _runtime(device: torch.device) -> str:
    kind = platform.machine() + " " + torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    return f"torch {torch.__version__}, {kind}"


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` threads on the CPU; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _hashes(request: EditRequest) -> tuple[str, str | None, tuple[str, ...]]:
    mask = None if request.mask is None else image_sha256(request.mask)
    return image_sha256(request.image), mask, tuple(image_sha256(reference) for reference in request.references)


def _offset(on_step: OnStep, done: int, total: int) -> OnStep:
    return lambda steps, _: on_step(done + steps, total)
