"""The memory that a training run needs, estimated before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from careedit.editing import Family
from careedit.experts import adapter_share, shapes_of

_PER_PARAMETER = 20
"""Bytes per trained parameter: weight, gradient, two moments of AdamW and the moving average, all in float32."""
_PER_WIDTH = 32
"""Values that one block keeps per token for the backward pass, as a multiple of the block's width."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Estimated bytes on the training device."""

    transformer: int
    """Weights of the frozen transformer."""
    encoders: int
    """Weights of text encoders and VAE."""
    adapter: int
    """The LoRA with its gradients, the optimizer's state and the moving average."""
    activations: int
    """What the forward pass keeps for the backward pass, if all of it is kept."""
    checkpointed: int
    """What the forward pass keeps with --checkpoint-gradients: the input of each block, and all of one block."""
    releases: bool
    """Whether the encoders leave the device after the rows are encoded."""
    checkpoints: bool
    """Whether the run uses --checkpoint-gradients."""

    @property
    def total(self) -> int:
        """The larger of two sums: while rows are encoded, and while the LoRA trains."""
        kept = self.checkpointed if self.checkpoints else self.activations
        training = self.transformer + self.adapter + kept
        return max(self.transformer + self.encoders, training + (0 if self.releases else self.encoders))

    def __str__(self) -> str:
        kept, other = (
            (self.checkpointed, f"{_gb(self.activations)} without --checkpoint-gradients")
            if self.checkpoints
            else (self.activations, f"{_gb(self.checkpointed)} with --checkpoint-gradients")
        )
        moved = ", which leave the device after the rows are encoded" if self.releases else ""
        return (
            f"Memory: about {_gb(self.total)}: transformer {_gb(self.transformer)}, text encoders and VAE "
            f"{_gb(self.encoders)}{moved}, LoRA and optimizer {_gb(self.adapter)}, activations {_gb(kept)} ({other})."
        )


def estimate(base: Family, *, rank: int, batch: int, pixels: int, checkpoint_gradients: bool) -> Memory:
    """The memory of a run whose largest row has `pixels` pixels: those of its target and of all pictures."""
    transformer: Any = base.transformer
    config = transformer.config
    blocks = len(transformer.transformer_blocks) + len(getattr(transformer, "single_transformer_blocks", ()))
    tokens = base.max_sequence_length + pixels // (2 * base.vae_scale) ** 2
    # Products and what they keep are in bfloat16 under autocast; float32 counts for a device that does not use it.
    width = config.num_attention_heads * config.attention_head_dim * (4 if base.dtype == torch.float32 else 2)
    one = batch * tokens * width
    modules = [getattr(base, name) for name in base.facts.components]
    sizes = {id(module): _bytes(module) for module in modules if isinstance(module, nn.Module)}
    weights = sizes.pop(id(transformer))
    lora = adapter_share(shapes_of(transformer, base.facts), rank=rank).adapter
    sequence = base.facts.layout == "sequence"
    return Memory(
        transformer=weights,
        encoders=sum(sizes.values()),
        adapter=_PER_PARAMETER * lora,
        activations=blocks * _PER_WIDTH * one,
        checkpointed=(blocks + _PER_WIDTH) * one,
        releases=sequence and base.device.type != "cpu",
        checkpoints=checkpoint_gradients,
    )


def shortage(memory: Memory, base: Family) -> str:
    """A warning if the device has less memory than `memory` needs; empty if it has enough, or for a CPU."""
    if base.device.type != "cuda":
        return ""
    size = torch.cuda.get_device_properties(base.device).total_memory
    if memory.total <= size:
        return ""
    return (
        f"The device has {_gb(size)}; the run may fail. Use --checkpoint-gradients, a lower --batch, a smaller "
        "--panel-size or --dtype bfloat16."
    )


def _bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
