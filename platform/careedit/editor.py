"""`Editor`: edits with one expert set, from requests to pictures and traces, and from a trace back to its picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple, overload

import torch
from PIL import Image

from careedit.editing import EditJob, EditState, Engine, OnSteps, Stepper
from careedit.editing.base_model import load_base_of, runtime_of, use_threads
from careedit.editing.state import StageClock
from careedit.errors import InputError, ReplayError
from careedit.experts import Application, ExpertSet, load_expert_set, make_applier, router_options
from careedit.experts.appliers import refuse_quantised
from careedit.experts.transformer_file import FORMATS
from careedit.families import Quantisation
from careedit.images import decoding_notes, fit_panel, grow, image_sha256, refine_mask
from careedit.records import (
    BASE,
    BatchSlot,
    EditRequest,
    EditResult,
    EditTrace,
    FilterTrace,
    RoutingDecision,
)
from careedit.routing import FixedRouter, Router, build_router, features_of
from careedit.scoring import Scorer
from careedit.selection.judge import Judge
from careedit.selection.plan import first_seed, make_plan
from careedit.selection.run import NO_JUDGE, Slot, batches, resume, select

MAX_BATCH = 8
"""Maximum of images in one batch."""

OnStep = Callable[[int, int], None]
"""(steps made, steps in total) over all images of a call; raising from it ends the call between two steps."""

OnPreview = Callable[[int, int, Image.Image], None]
"""(position in the batch, index of the preview, the current estimate of the result at the source's size)."""
SHARED = "replay: its batches were shared or split as the load demanded, so a replay may differ in the last bit"
"""The degradation of an edit that a replay may not repeat bit for bit."""


class FinishedImage(NamedTuple):
    """One image of a batch."""

    picture: Image.Image
    """RGB, of the source's size; outside the mask it holds the source's own pixels."""
    trace: EditTrace
    """How the image was made."""
    previews: tuple[Image.Image, ...]
    """The last preview of each candidate of its early filter, at the panel's scale; empty without a filter."""


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
        text_encoders: bool = True,
        quantisation: Quantisation | None = None,
        compiled: bool = False,
    ) -> None:
        """As `load_editor`. Without `text_encoders`, `engine.prepare` takes encoded prompts, and `edit` does not work."""
        spec = expert_set.spec
        self.expert_set = expert_set
        self.application: Application = application or spec.application
        self.quantisation = quantisation
        if self.application == "merged":
            refuse_quantised(quantisation or (FORMATS if spec.base.transformer else None))
        base = load_base_of(
            expert_set, device=device, dtype=dtype, text_encoders=text_encoders, quantisation=quantisation
        )
        applier = make_applier(
            base.transformer, expert_set, self.application, byte_budget=byte_budget, compiled=compiled
        )
        self.compiled = compiled
        self.engine = Engine(base, applier)
        self.judge = None if scorer is None else Judge(scorer)

    @cached_property
    def router(self) -> Router:
        """The set's router, loaded at its first use: an edit that names its expert needs none, nor does an expert replica."""
        spec, experts = self.expert_set.spec.router, tuple(self.expert_set.manifests.values())
        return build_router(
            spec.kind, experts=experts, options=router_options(self.expert_set.spec, self.expert_set.folder)
        )

    def route(self, request: EditRequest) -> RoutingDecision:
        """The experts that `edit` would use for this request, and why; it edits nothing."""
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

        An image with an early filter is denoised alone, after a batch of its candidates. All requests are checked before
        the first is edited. Raises `InputError` and its subclasses, `ExpertError` for an expert that cannot be loaded.
        """
        if isinstance(requests, EditRequest):
            return self.edit([requests], on_step=on_step)[0]
        slots = [slot for request in requests for slot in self.slots(request)]
        for slot in slots:
            self.engine.check(slot.job)
            if slot.plan.checkpoints and self.judge is None:
                raise InputError(NO_JUDGE, field="early_filter")
        made: dict[int, FinishedImage] = {}
        total, done = sum(slot.plan.cost for slot in slots), 0

        def stepped(count: int) -> None:
            nonlocal done
            done += count
            if on_step is not None:
                on_step(done, total)

        for batch in batches(slots, MAX_BATCH):
            finished = self.make(batch, self.engine, judge=self.judge, on_steps=stepped)
            made.update(zip((id(slot) for slot in batch), finished, strict=True))
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

        Rounding depends on the shapes of a batch, not on the content of its other edits; so this edit takes their places
        too, with their steps and experts. On a CPU it depends on the number of threads, which is set to the trace's. The
        choice of an early filter is kept; no judge is asked again.

        Raises `ReplayError` if something differs. Another version of torch or another processor is a degradation in the
        new trace, because the image may still be the same.
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
            step_cache=trace.step_cache,
        )
        hashes = _hashes(request)
        if hashes != (trace.image_sha256, trace.mask_sha256, trace.reference_sha256):
            raise ReplayError("The image, mask or references are not the ones of the trace; give the same pictures.")
        slot = self.slots(request)[0]
        batch = [replace(slot.in_place_of(other), decision=trace.routing) for other in trace.batch]
        with use_threads(trace.threads):
            result, again, _ = self.make(batch, self.engine, chosen=trace.filter)[trace.slot]
        if again.runtime != trace.runtime:
            changed = f"replay: made with {trace.runtime}, again with {again.runtime}, so bits may differ"
            again = again.model_copy(update={"degradations": (*again.degradations, changed)})
        return EditResult(images=(result,), traces=(again,))

    def _check_replay(self, trace: EditTrace) -> None:
        base = self.engine.base
        here = {
            "expert_set_sha256": self.expert_set.sha256,
            "application": self.application,
            "device": base.device.type,
            "dtype": str(base.dtype).removeprefix("torch."),
            "quantisation": self.quantisation,
        }
        for name, value in here.items():
            if getattr(trace, name) != value:
                raise ReplayError(
                    f"The trace was made with {name} {getattr(trace, name)!r}, this editor has {value!r}; "
                    "load the editor as it was."
                )

    def slots(self, request: EditRequest, decision: RoutingDecision | None = None) -> list[Slot]:
        """The images of a request, fitted to their panels and routed unless `decision` is given; it edits nothing.

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
            # A small margin around the object: its soft edge belongs to the edit.
            mask = grow(refine_mask(request.image, mask), max(1, min(mask.size) // 64))
        fit = fit_panel(request.image.size, spec.panel.size, spec.panel.fit, spec.panel.multiple)
        panel_mask = None if mask is None else fit.to_panel(mask)
        references = tuple(
            reference.resize(fit.panel, Image.Resampling.LANCZOS)
            if spec.panel.fit == "resize" and self.engine.base.facts.layout == "canvas"
            else fit_panel(reference.size, spec.panel.size, spec.panel.fit, spec.panel.multiple).to_panel(reference)
            for reference in request.references
        )
        steps = request.steps or spec.defaults.steps
        plan = make_plan(request.early_filter, steps)
        first = first_seed(request.seed, request.n * plan.candidates)
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
                    step_cache=request.step_cache,
                ),
                seconds,
                plan,
                tuple(first + i + j * request.n for j in range(plan.candidates)),
            )
            for i in range(request.n)
        ]

    def make(
        self,
        batch: Sequence[Slot],
        stepper: Stepper,
        *,
        judge: Judge | None = None,
        on_steps: OnSteps | None = None,
        previews: int = 0,
        on_preview: OnPreview | None = None,
        chosen: FilterTrace | None = None,
    ) -> list[FinishedImage]:
        """Make the images of one batch: prepare or filter, denoise, decode. It is the one loop, in a library and a server.

        `previews` are shown by `on_preview` after evenly spaced steps; one that would be the result itself is left out.
        With `chosen`, what the filter of a replayed edit had chosen, no judge is asked.
        """
        clock = StageClock(stepper)
        seen: tuple[Image.Image, ...] = ()
        with stepper.lease({name for slot in batch for name in slot.job.weights} - {BASE}):
            if chosen is not None:
                states = [resume(stepper, batch[0].job, chosen)]
            elif batch[0].plan.checkpoints:
                selected = select(stepper, batch[0], judge, on_steps)
                states, chosen, seen = [selected.state], selected.trace, selected.previews
            else:
                states = [stepper.prepare(slot.job) for slot in batch]
            clock.lap("prepare" if chosen is None else "filter")
            steps, begun = states[0].schedule.steps, states[0].index
            for index in range(previews):
                stop = round(steps * (index + 1) / (previews + 1))
                if on_preview is not None and begun <= stop < steps and stop > 0:
                    stepper.advance(states, stop, on_steps)
                    for i, panel in enumerate(stepper.preview_many(states)):
                        on_preview(i, index, batch[i].picture(panel))
            stepper.advance(states, on_steps=on_steps)
            clock.lap("denoise")
            panels = stepper.finish_many(states)
        pictures = [slot.picture(panel) for slot, panel in zip(batch, panels, strict=True)]
        clock.lap("finish")
        places = tuple(self._place(slot, state) for slot, state in zip(batch, states, strict=True))
        traces = [
            self._trace(batch[i], state, places, i, stepper, clock.stages, chosen) for i, state in enumerate(states)
        ]
        return [FinishedImage(picture, trace, seen) for picture, trace in zip(pictures, traces, strict=True)]

    def _place(self, slot: Slot, state: EditState) -> BatchSlot:
        """What a replay of another image of the batch needs to know about this one."""
        branches = self.engine.base.guidance == "branches"
        return BatchSlot(
            steps=slot.job.steps,
            weights=dict(slot.job.weights),
            masked=slot.job.mask is not None,
            text_tokens=state.encoded.text_tokens if branches else (),
            step_cache=slot.job.step_cache,
        )

    def _trace(
        self,
        slot: Slot,
        state: EditState,
        places: tuple[BatchSlot, ...],
        index: int,
        stepper: Stepper,
        stages: Mapping[str, float],
        chosen: FilterTrace | None,
    ) -> EditTrace:
        """How image `index` of a batch (`slot`) was made, from its finished state; `stages` are seconds per stage after "route"."""
        degradations = [*decoding_notes((slot.request.image, *slot.request.references))]
        image_hash, mask_hash, reference_hashes = _hashes(slot.request)
        if state.encoded.truncated:
            degradations.append("instruction: longer than the base reads, its end was cut")
        if chosen is not None and chosen.degraded is not None:
            went_on = chosen.candidates[chosen.chosen].seed
            degradations.append(f"degraded: filter, {chosen.degraded}, so seed {went_on} went on")
        if stepper.shared:
            degradations.append(SHARED)
        return EditTrace(
            expert_set=self.expert_set.name,
            expert_set_sha256=self.expert_set.sha256,
            instruction=slot.request.instruction,
            prompt=self.engine.base.prompt(slot.job),
            image_sha256=image_hash,
            mask_sha256=mask_hash,
            reference_sha256=reference_hashes,
            routing=slot.decision,
            application=self.application,
            seed=state.job.seed,
            steps=slot.job.steps,
            guidance=state.encoded.scale,
            refine_mask=slot.request.refine_mask,
            step_cache=slot.job.step_cache,
            panel=slot.job.source.size,
            nfe=state.nfe,
            batch=places,
            slot=index,
            device=self.engine.base.device.type,
            dtype=str(self.engine.base.dtype).removeprefix("torch."),
            quantisation=self.quantisation,
            runtime=runtime_of(self.engine.base.device, self.quantisation, compiled=self.compiled),
            threads=stepper.threads if self.engine.base.device.type == "cpu" else None,
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
    quantisation: Quantisation | None = None,
    compiled: bool = False,
) -> Editor:
    """Load an expert set and its base: a name ("tiny"), a folder, or an fsspec address (`s3://`, `hf://`).

    `device` is by default a GPU if there is one; `dtype` by default float32 on a CPU and bfloat16 on a GPU.
    `application` ("merged" or "shared") and `byte_budget` (maximum bytes of loaded adapters) override the set's own.
    `scorer` is the judge of an early filter. `quantisation` ("fp8", "int8" or "nf4") stores the transformer's weights in
    fewer bits, which needs the application "shared". `compiled`: the transformer's blocks are compiled at the first edit,
    which then takes minutes; later ones are faster (docs/families.md).
    """
    editor = Editor(
        load_expert_set(expert_set),
        device=device,
        dtype=dtype,
        application=application,
        byte_budget=byte_budget,
        scorer=scorer,
        quantisation=quantisation,
        compiled=compiled,
    )
    _ = editor.router  # not in the time of the first edit
    return editor


def _hashes(request: EditRequest) -> tuple[str, str | None, tuple[str, ...]]:
    mask = None if request.mask is None else image_sha256(request.mask)
    return image_sha256(request.image), mask, tuple(image_sha256(reference) for reference in request.references)
