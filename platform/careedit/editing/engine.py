"""The denoising loop: prepare, step, preview, finish, over explicit states that may share batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from careedit.editing.base_model import EditorBase
from careedit.editing.cache import EncodingCache
from careedit.editing.encode import Encoder
from careedit.editing.latents import position_ids, token_coverage
from careedit.editing.mixing import mix_velocities
from careedit.editing.schedule import Schedule, make_schedule
from careedit.editing.state import EditJob, EditState, OnSteps
from careedit.errors import CareEditError, ImageError, InputError
from careedit.experts.applier import ExpertApplier
from careedit.images import canvas_mask, compose_canvas, crop_target
from careedit.records import mixture_rows

DEFAULT_GUIDANCE = 30.0
"""Default guidance scale of `FluxFillPipeline`, for a guidance-distilled base."""


class Engine:
    """Edits panel-sized pictures in context with one base; equals `FluxFillPipeline` for one edit without experts.

    It is a `Stepper` that never waits.
    """

    waited = None
    """No other edit has the engine while one runs."""
    shared = False
    """A batch holds no other edits than the caller's."""

    def __init__(self, base: EditorBase, applier: ExpertApplier, *, cache: EncodingCache | None = None) -> None:
        self.base = base
        self.applier = applier
        self.cache = EncodingCache() if cache is None else cache
        self.encoder = Encoder(base, self.cache)
        self._schedules: dict[tuple[int, int], Schedule] = {}
        self._positions: dict[tuple[int, int], Tensor] = {}

    def prepare(self, job: EditJob) -> EditState:
        """Encode an edit and draw its noise. Panel sides must be multiples of `base.multiple`.

        Raises `InputError` for guidance on a base that takes none, `ImageError` for a panel size that does not fit.
        """
        guidance = self.check(job)
        canvas = compose_canvas([*job.references, job.source, job.source])
        mask = canvas_mask(job.panels, job.source.size, job.mask)
        prompt = self.encoder.prompt(job.prompt)
        start = self.encoder.start(canvas, mask, job.seed)
        latents = start.noise * job.noise_scale
        if job.start == "source":
            latents = latents + self.encoder.picture(canvas)
        return EditState(
            job=job,
            canvas_size=canvas.size,
            schedule=self._schedule(job.steps, start.noise.shape[1]),
            latents=latents,
            condition=start.condition,
            coverage=None if job.mask is None else token_coverage(start.mask),
            prompt_tokens=prompt.tokens,
            prompt_pooled=prompt.pooled,
            prompt_truncated=prompt.truncated,
            guidance=guidance,
        )

    @torch.no_grad()
    def step(self, states: Sequence[EditState]) -> None:
        """Advance every live state by one step of its own schedule; finished and cancelled ones are not changed.

        States whose canvases and texts have the same shape run as one batch, one row per expert of each state.
        """
        groups: dict[tuple[tuple[int, int], int], list[EditState]] = {}
        for state in dict.fromkeys(states):  # a state that is listed twice advances once
            if state.live:
                groups.setdefault((state.canvas_size, state.prompt_tokens.shape[1]), []).append(state)
        for group in groups.values():
            self._step_group(group)

    def advance(self, states: Sequence[EditState], to: int | None = None, on_steps: OnSteps | None = None) -> None:
        """`step` until each of `states` has done `to` steps, by default all of its own; cancelled ones are not changed."""
        while due := [state for state in states if state.live and (to is None or state.index < to)]:
            self.step(due)
            if on_steps is not None:
                on_steps(len(due))

    def lease(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Load the named experts and keep them loaded until the context ends."""
        return self.applier.lease(names)

    @property
    def threads(self) -> int:
        """Torch's CPU threads."""
        return torch.get_num_threads()

    def preview(self, state: EditState) -> Image.Image:
        """The current estimate of the target panel (x0 = x - sigma v), RGB. It changes no state and evaluates nothing.

        Raises `CareEditError` before the first step, `CancelledError` for a cancelled edit.
        """
        return self.preview_many([state])[0]

    def preview_many(self, states: Sequence[EditState]) -> list[Image.Image]:
        """`preview` of several states, decoded as one batch per canvas size."""
        estimates = []
        for state in states:
            state.raise_if_cancelled()
            if state.velocity is None:
                raise CareEditError("The edit has made no step, so there is nothing to preview; step it first.")
            estimates.append(state.schedule.denoised(state.latents, state.velocity, state.index))
        return self._panels(states, estimates)

    def finish(self, state: EditState) -> Image.Image:
        """The target panel of a finished edit, RGB, of the source panel's size.

        Raises `CancelledError` for a cancelled edit, `CareEditError` for one with steps left.
        """
        return self.finish_many([state])[0]

    def finish_many(self, states: Sequence[EditState]) -> list[Image.Image]:
        """`finish` of several states, decoded as one batch per canvas size."""
        for state in states:
            state.raise_unless_finished()
        return self._panels(states, [state.latents for state in states])

    def cancel(self, state: EditState) -> None:
        """Stop an edit, as `state.cancel()` does; the next `step` skips it."""
        state.cancel()

    def decode(self, states: Sequence[EditState], latents: Sequence[Tensor]) -> list[Tensor]:
        """Whole canvases, [1, 3, height, width] in about -1..1, of the states' sizes from `latents` ([1, T, 4C] each)."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for position, state in enumerate(states):
            by_size.setdefault(state.canvas_size, []).append(position)
        decoded: dict[int, Tensor] = {}
        for size, positions in by_size.items():
            batch = self.encoder.decode(torch.cat([latents[i] for i in positions]), size)
            decoded.update(zip(positions, torch.split(batch, 1), strict=True))
        return [decoded[position] for position in range(len(states))]

    def _step_group(self, group: Sequence[EditState]) -> None:
        rows = [mixture_rows(state.job.weights, masked=state.coverage is not None) for state in group]
        names = [name for row in rows for name in row]
        with self.applier.lease(set(names)):
            velocity = self.applier.velocity(names, self._inputs(group, [len(row) for row in rows]))
        first = 0
        for state, row in zip(group, rows, strict=True):
            own = {name: velocity[first + i : first + i + 1] for i, name in enumerate(row)}
            first += len(row)
            mixed = mix_velocities(own, state.job.weights, state.coverage)
            state.latents = state.schedule.advance(state.latents, mixed, state.index)
            # A slice would keep the whole batch's velocities in memory while this edit waits.
            state.velocity = mixed.clone()
            state.index += 1
            state.nfe += len(row)

    def _inputs(self, group: Sequence[EditState], repeats: Sequence[int]) -> dict[str, Any]:
        """The transformer's arguments, each state's row repeated once per expert it needs."""
        repeated = [state for state, times in zip(group, repeats, strict=True) for _ in range(times)]
        dtype, device = self.base.dtype, self.base.device
        times = torch.stack([state.schedule.timesteps[state.index] for state in repeated])
        scales = [state.guidance for state in repeated if state.guidance is not None]
        return {
            "hidden_states": torch.cat([torch.cat((state.latents, state.condition), dim=2) for state in repeated]),
            "timestep": times.to(dtype) / 1000,
            "guidance": torch.tensor(scales, dtype=torch.float32, device=device) if scales else None,
            "pooled_projections": torch.cat([state.prompt_pooled for state in repeated]),
            "encoder_hidden_states": torch.cat([state.prompt_tokens for state in repeated]),
            "txt_ids": torch.zeros(group[0].prompt_tokens.shape[1], 3, device=device, dtype=dtype),
            "img_ids": self._position_ids(group[0].canvas_size),
        }

    def _panels(self, states: Sequence[EditState], latents: Sequence[Tensor]) -> list[Image.Image]:
        canvases = self.decode(states, latents)
        return [
            crop_target(self.encoder.to_pictures(canvas)[0], state.job.panels)
            for state, canvas in zip(states, canvases, strict=True)
        ]

    def check(self, job: EditJob) -> float | None:
        """The guidance scale that `prepare` would use; raises what `prepare` would raise for this base, at no cost."""
        multiple = self.base.multiple
        if any(side % multiple for side in job.source.size):
            raise ImageError(
                f"The source's panel is {job.source.width}x{job.source.height}; its sides must be multiples of {multiple}."
            )
        if self.base.takes_guidance:
            return DEFAULT_GUIDANCE if job.guidance is None else job.guidance
        if job.guidance is not None:
            raise InputError(
                f"guidance is {job.guidance}, but this base is not guidance-distilled and takes none; leave guidance out.",
                field="guidance",
            )
        return None

    def _schedule(self, steps: int, tokens: int) -> Schedule:
        if (steps, tokens) not in self._schedules:
            self._schedules[steps, tokens] = make_schedule(self.base.scheduler, steps, tokens, self.base.device)
        return self._schedules[steps, tokens]

    def _position_ids(self, size: tuple[int, int]) -> Tensor:
        if size not in self._positions:
            width, height = (side // self.base.vae_scale for side in size)
            self._positions[size] = position_ids(height, width).to(device=self.base.device, dtype=self.base.dtype)
        return self._positions[size]
