"""Merged application: one expert at a time folded into the base's weights, at no cost per step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from threading import RLock
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from careedit.experts.formats import LoraState
from careedit.experts.library import AdapterLibrary
from careedit.experts.pool import LeasePool
from careedit.experts.rows import group_rows, take_rows
from careedit.records import BASE, unknown_expert


class MergedApplier:
    """Runs a batch in one pass per expert that occurs in it, merging each expert's update before its pass.

    Every merge starts from a pristine copy of the targeted weights and computes W + (alpha / rank) * B @ A in float32,
    so that A, then B, then A again gives the same bits. The copy is kept in the weights' own number format, which
    float32 represents exactly: same bits, half the memory for a bfloat16 base.
    """

    kind: Literal["merged"] = "merged"
    """How this applier applies adapters."""

    def __init__(self, transformer: nn.Module, library: AdapterLibrary, *, byte_budget: int | None = None) -> None:
        """`byte_budget` bounds the adapters that are kept read, in bytes; None keeps all that were used."""
        self.transformer = transformer
        self.library = library
        self.active = BASE
        """The expert that is merged now."""
        self._lock = RLock()
        self._loaded: dict[str, LoraState] = {}
        self._pristine: dict[str, Tensor] = {}
        self._merged: set[str] = set()
        self._pool = LeasePool(
            size=lambda name: library.parameters(name) * 4,
            load=self._load,
            unload=self._unload,
            budget=byte_budget,
            lock=self._lock,
        )

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of the adapters that are read, least recently used first."""
        return self._pool.resident

    @property
    def resident_bytes(self) -> int:
        """Bytes that they take."""
        return self._pool.used

    def lease(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Reads the named adapters and keeps them read until the context ends."""
        return self._pool.lease(self._known(names))

    def velocity(self, rows: Sequence[str], inputs: Mapping[str, Any]) -> Tensor:
        """The velocity, shape [rows, tokens, channels]: one pass per expert, the merged one first."""
        self._known(rows)
        with self._lock, self._pool.lease(rows):
            groups = group_rows(rows)
            if len(groups) == 1:
                self.merge(rows[0])
                return self._run(inputs)
            order = sorted(groups, key=lambda name: name != self.active)
            parts: dict[int, Tensor] = {}
            for name in order:
                self.merge(name)
                output = self._run(take_rows(inputs, groups[name], len(rows)))
                parts.update(zip(groups[name], output, strict=True))
            return torch.stack([parts[index] for index in range(len(rows))])

    def merge(self, name: str) -> None:
        """Makes the transformer's weights those of the base with expert `name`; `BASE` restores the base's bits."""
        with self._lock:
            if name == self.active:
                return
            if name != BASE and name not in self._loaded:
                with self._pool.lease([name]):
                    self.merge(name)
                return
            update = self._loaded[name].modules if name != BASE else {}
            # Until all is done no expert is active, so that a failure on the way is repaired by the next merge.
            self.active = ""
            # Weights that were made in inference mode may be written in it only, others are kept normal tensors.
            frozen = next(self.transformer.parameters()).is_inference()
            with torch.inference_mode(frozen), torch.no_grad():
                for path in self._merged - update.keys():
                    self._weight(path).copy_(self._pristine[path])
                    self._merged.discard(path)
                for path, module in update.items():
                    weight = self._weight(path)
                    if path not in self._pristine:
                        self._pristine[path] = weight.detach().clone()
                    self._merged.add(path)
                    down = module.down.to(weight.device, torch.float32)
                    up = module.up.to(weight.device, torch.float32)
                    weight.copy_(torch.addmm(self._pristine[path].float(), up, down, alpha=module.scale))
            self.active = name

    def forget(self, name: str) -> None:
        """Drops what is read of one expert, after it was removed or replaced; `ExpertError` while it is leased."""
        with self._lock:
            self._pool.drop(name)

    def _run(self, inputs: Mapping[str, Any]) -> Tensor:
        return cast(Tensor, self.transformer(**{**inputs, "return_dict": False})[0])

    def _weight(self, path: str) -> Tensor:
        return cast(Tensor, self.transformer.get_submodule(path).weight)

    def _load(self, name: str) -> None:
        self._loaded[name] = self.library.load(name)

    def _unload(self, name: str) -> None:
        if self.active == name:
            self.merge(BASE)
        del self._loaded[name]

    def _known(self, names: Iterable[str]) -> list[str]:
        known = self.library.names
        listed = list(names)
        for name in listed:
            if name != BASE and name not in known:
                raise unknown_expert(name, known)
        return listed
