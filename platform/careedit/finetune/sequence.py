"""Own rows of a base that reads pictures as tokens: encoded once, a file each, and their flow loss.

The target's tokens are noisy, x_s = (1 - s) x_1 + s e, and the pictures' tokens stand clean behind them, as in an edit. The
loss is the error of the velocity e - x_1 on the target's tokens alone. s is drawn uniformly and shifted by the family's own
schedule, so training sees each noise level as often as edits do. The text encoder is not needed after the encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from careedit.editing import EncodingCache
from careedit.editing.families import Row, SequenceFamily
from careedit.editing.families.sequence import free_tokens
from careedit.finetune import data
from careedit.finetune.flow import differing, forward_context, weighted_mean
from careedit.finetune.pool import write_tensors
from careedit.progress import counted

Tensors = Mapping[str, Tensor]
"""One encoded row: "target", "picture.N" and "text.NAME", "grids" [pictures + 1, 2], and "free" if it has a mask."""


@dataclass(frozen=True, eq=False)
class SequenceRows:
    """The encoded rows of one bucket, whose pictures have the same sizes. A row is read when a step needs it."""

    base: SequenceFamily
    """The base that encoded them."""
    files: Sequence[Path]
    """The file of each row."""
    noise_scale: float = 1.0
    """Standard deviation of the noise that the expert set's edits start from. Default: 1."""

    def __len__(self) -> int:
        return len(self.files)

    def loss(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """The flow loss on the rows `chosen` (indices, [B]); a scalar."""
        rows = [load_file(self.files[index], device=str(self.base.device)) for index in chosen.tolist()]
        return sequence_loss(self.base, rows, generator, noise_scale=self.noise_scale)


def encode_sequence_rows(
    bucket: str,
    row: Callable[[int], data.Row],
    count: int,
    rules: data.RowRules,
    base: SequenceFamily,
    folder: Path,
    noise_scale: float = 1.0,
) -> SequenceRows:
    """The `count` rows of a bucket as tokens, kept in `folder`. Existing files are reused."""
    folder.mkdir(parents=True, exist_ok=True)
    cache = EncodingCache()
    files = [folder / f"{bucket}-{index:06d}.safetensors" for index in range(count)]
    for index, path in enumerate(counted(files, f"rows {bucket}")):
        if not path.exists():
            write_tensors(encode_row(row(index), rules, base, cache), path)
    return SequenceRows(base, files, noise_scale)


@torch.no_grad()
def encode_row(row: data.Row, rules: data.RowRules, base: SequenceFamily, cache: EncodingCache) -> Tensors:
    """A row as the base sees it in an edit, and its target, on the CPU."""
    job, target = data.row_job(row, rules, base)
    encoded = base.encode(job, cache)
    tensors = {"target": base.encode_picture(target), "grids": torch.tensor(base.grids(job))}
    tensors |= {f"picture.{number}": tokens for number, tokens in enumerate(encoded.pictures)}
    tensors |= {f"text.{name}": value for name, value in encoded.texts[0].items()}
    if job.mask is not None:
        tensors["free"] = free_tokens(job.mask, encoded.grid)
    return {name: value.cpu() for name, value in tensors.items()}


def sequence_loss(
    base: SequenceFamily, rows: Sequence[Tensors], generator: torch.Generator, *, noise_scale: float = 1.0
) -> Tensor:
    """The mean squared velocity error on rows whose pictures have the same sizes; a scalar.

    A base with embedded guidance learns at scale 1, and one with guidance branches on the branch with the instruction.
    Tokens are weighted as in `flow_loss`. Noise comes from the generator, on the CPU, and is the same on every device.
    """
    grids = tuple((int(height), int(width)) for height, width in rows[0]["grids"].tolist())
    texts = [{name[5:]: value for name, value in row.items() if name.startswith("text.")} for row in rows]
    pictures = [[row[f"picture.{number}"] for number in range(len(grids) - 1)] for row in rows]
    clean = torch.cat([row["target"] for row in rows]).float()
    noise = torch.cat([base.noise(grids[0], generator) for _ in rows]).to(base.device).float() * noise_scale
    sigma = draw_sigmas(base, len(rows), clean.shape[1], generator).to(base.device)
    noisy = torch.lerp(clean, noise, sigma[:, None, None]).to(base.dtype)
    scale = 1.0 if base.guidance == "embedded" else None
    batch = [
        Row(noisy[index : index + 1], torch.cat(pictures[index], dim=1), text, scale, {})
        for index, text in enumerate(texts)
    ]
    inputs = base.inputs(batch, sigma * 1000, base.shared_inputs(grids, texts)[1])
    with forward_context(base):
        output = base.transformer(**inputs.per_row, **inputs.shared, return_dict=False)[0]
    velocity = output[:, : clean.shape[1]].float()
    error = (velocity - (noise - clean)).square().mean(dim=2, keepdim=True)
    edited = differing(clean - torch.cat([own[0] for own in pictures]).float())
    free = torch.cat([row.get("free", torch.ones(edited[:1].shape)).to(base.device) for row in rows])
    return weighted_mean(error, edited, free)


def draw_sigmas(base: SequenceFamily, count: int, tokens: int, generator: torch.Generator) -> Tensor:
    """`count` noise levels above 0 and at most 1, as dense as the steps of the family's usual edit are."""
    uniform = 1 - torch.rand(count, generator=generator)
    scheduler: Any = base.scheduler
    if scheduler.config.use_dynamic_shifting:
        shifted: Tensor = scheduler.time_shift(base.shift(tokens, base.facts.default_steps), 1.0, uniform)
        return shifted
    shift = float(scheduler.config.shift)
    return shift * uniform / (1 + (shift - 1) * uniform)


def release_encoders(base: SequenceFamily) -> None:
    """Move everything but the transformer to the CPU. Encoded rows need it no more, and training needs the memory."""
    for name in base.facts.components:
        module = getattr(base, name)
        if isinstance(module, nn.Module) and module is not base.transformer:
            module.to("cpu")
