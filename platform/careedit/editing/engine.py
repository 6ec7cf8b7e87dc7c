"""The denoising loop: prepare, step, preview, finish, over explicit states that may share batches."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from contextlib import AbstractContextManager

import torch
from PIL import Image
from torch import Tensor

from careedit.editing.cache import EncodingCache, Tensors
from careedit.editing.families.family import Family, Row
from careedit.editing.job import EditJob
from careedit.editing.mixing import mix_velocities
from careedit.editing.schedule import Schedule, make_schedule
from careedit.editing.state import EditState, OnSteps
from careedit.errors import CareEditError
from careedit.experts.applier import ExpertApplier
from careedit.records import mixture_rows


class Engine:
    """Edits panel-sized pictures in context with one base; equals the stock pipeline for one edit without experts.

    It is a `Stepper` that never waits.
    """

    waited = None
    """No other edit has the engine while one runs."""
    shared = False
    """A batch holds no other edits than the caller's."""

    def __init__(self, base: Family, applier: ExpertApplier, *, cache: EncodingCache | None = None) -> None:
        self.base = base
        self.applier = applier
        self.cache = EncodingCache() if cache is None else cache
        self._schedules: dict[tuple[int, int], Schedule] = {}

    def prepare(self, job: EditJob, texts: Sequence[Tensors] | None = None) -> EditState:
        """Encode an edit and draw its noise; errors as in `Family.check`. `texts` are as in `Family.encode`."""
        encoded = self.base.encode(job, self.cache, texts)
        begin = self.base.begin(job, encoded)
        return EditState(
            job=job,
            encoded=encoded,
            schedule=self._schedule(job.steps, begin.latents.shape[1]),
            latents=begin.latents,
            condition=begin.condition,
            coverage=begin.coverage,
            kept=begin.kept,
        )

    @torch.no_grad()
    def step(self, states: Sequence[EditState]) -> None:
        """Advance every live state by one step of its own schedule; finished and cancelled ones are not changed.

        States of one layout run as one batch, one row per expert and guidance branch of each state.
        """
        groups: dict[Hashable, list[EditState]] = {}
        for state in dict.fromkeys(states):  # a state that is listed twice advances once
            if not state.live:
                continue
            if state.needs_evaluation:
                apart = self.base.first_step_apart and state.index == 0
                groups.setdefault((state.encoded.layout, apart), []).append(state)
            else:
                state.move(state.extrapolated())
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
        """`preview` of several states, decoded as one batch per size."""
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
        """`finish` of several states, decoded as one batch per size."""
        for state in states:
            state.raise_unless_finished()
        return self._panels(states, [state.latents for state in states])

    def cancel(self, state: EditState) -> None:
        """Stop an edit, as `state.cancel()` does; the next `step` skips it."""
        state.cancel()

    def check(self, job: EditJob) -> float | None:
        """The guidance scale that `prepare` would use; raises what `prepare` would raise for this base, at no cost."""
        return self.base.check(job)

    def decode(self, states: Sequence[EditState], latents: Sequence[Tensor]) -> list[Tensor]:
        """Pictures [1, 3, height, width] in about -1..1 from `latents` ([1, T, C] each); for a canvas, the whole canvas."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for position, state in enumerate(states):
            by_size.setdefault(state.encoded.grid, []).append(position)
        decoded: dict[int, Tensor] = {}
        for grid, positions in by_size.items():
            batch = self.base.decode(torch.cat([latents[i] for i in positions]), grid)
            decoded.update(zip(positions, torch.split(batch, 1), strict=True))
        return [decoded[position] for position in range(len(states))]

    def _step_group(self, group: Sequence[EditState]) -> None:
        names, rows, times = [], [], []
        for state in group:
            for name in _experts(state):
                for branch, text in enumerate(state.encoded.texts):
                    names.append(name)
                    memory = state.memory.setdefault((name, branch), {})
                    rows.append(Row(state.latents, state.condition, text, state.encoded.scale, memory))
                    times.append(state.schedule.timesteps[state.index])
        inputs = self.base.inputs(rows, torch.stack(times), group[0].encoded.shared)
        with self.applier.lease(set(names)):
            output = self.applier.velocity(names, inputs)
        velocities = iter(torch.split(output[:, : group[0].latents.shape[1]], 1))
        for state in group:
            own = {
                name: self.base.combine([next(velocities) for _ in state.encoded.texts], state.encoded.scale)
                for name in _experts(state)
            }
            mixed = mix_velocities(own, state.job.weights, state.coverage)
            mixed = mixed.clone()  # a slice would keep the whole batch's velocities in memory while this edit waits
            state.note(mixed)
            state.move(mixed)
            state.nfe += len(own) * len(state.encoded.texts)

    def _panels(self, states: Sequence[EditState], latents: Sequence[Tensor]) -> list[Image.Image]:
        pictures = self.decode(states, latents)
        return [self.base.to_image(picture, state.job) for state, picture in zip(states, pictures, strict=True)]

    def _schedule(self, steps: int, tokens: int) -> Schedule:
        if (steps, tokens) not in self._schedules:
            self._schedules[steps, tokens] = make_schedule(
                self.base.scheduler, steps, self.base.shift(tokens, steps), self.base.device
            )
        return self._schedules[steps, tokens]


def _experts(state: EditState) -> tuple[str, ...]:
    return mixture_rows(state.job.weights, masked=state.coverage is not None)
