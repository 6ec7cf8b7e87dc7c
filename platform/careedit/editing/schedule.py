"""The noise schedule of one edit, computed by the base's own scheduler class as the stock pipelines set it up."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """The sigmas of a number of steps, on the device of the latents."""

    timesteps: Tensor
    """[steps], float32, sigma times 1000: the transformer's input."""
    sigmas: Tensor
    """[steps + 1], float32, from 1 (noise) to 0 (clean)."""

    @property
    def steps(self) -> int:
        """Number of denoising steps of this schedule."""
        return len(self.timesteps)

    def advance(self, latents: Tensor, velocity: Tensor, index: int) -> Tensor:
        """One Euler step from `sigmas[index]` to the next, rounded exactly as `FlowMatchEulerDiscreteScheduler.step`.

        Its 0-d float32 step size does not promote the velocity, so in bfloat16 the product is bfloat16 there and here.
        """
        step = self.sigmas[index + 1] - self.sigmas[index]
        return (latents.to(torch.float32) + step * velocity).to(velocity.dtype)

    def denoised(self, latents: Tensor, velocity: Tensor | None, index: int) -> Tensor:
        """The estimate of the clean latents, x0 = x - sigma v; at the end, where sigma is 0, the latents themselves."""
        if velocity is None or index == self.steps:
            return latents
        return (latents.to(torch.float32) - self.sigmas[index] * velocity).to(latents.dtype)


def make_schedule(scheduler: FlowMatchEulerDiscreteScheduler, steps: int, mu: float, device: torch.device) -> Schedule:
    """The schedule of `steps` steps; `mu` is the shift of the sigmas (`Family.shift`)."""
    own: Any = deepcopy(scheduler)
    own.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), device=device, mu=mu)
    return Schedule(own.timesteps, own.sigmas)
