"""Shared application in slots, for a GPU: every layer holds a fixed number of adapters, and each row picks one by index.

The operations of a step do not depend on the experts of its batch, so `torch.compile` makes no new graph when the batch or
the loaded experts change, as it does for the spans of `SharedApplier`. On a CPU without compilation spans are faster.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from careedit.experts.applier import AdapterLibrary, Inputs, LoraApplier, check_known, compute_dtype, run_transformer
from careedit.experts.formats import LoraModule
from careedit.records import BASE


class SlotRoute:
    """The slot of each row of the running batch; all slotted layers of a transformer read the same one."""

    index: Tensor | None = None
    """Slots [rows]; None outside `SlotApplier.velocity`."""


class SlotLinear(nn.Module):
    """A linear layer with an adapter per slot; slot 0 stays empty."""

    a: Tensor
    """The matrices A, [slots, rank, in features]; smaller ranks are padded with zeros."""
    b: Tensor
    """The matrices B, scaled by alpha / rank, [slots, out features, rank]."""

    def __init__(self, base: nn.Linear, route: SlotRoute) -> None:
        super().__init__()
        self.base_layer, self.route = base, route
        for name in ("a", "b"):
            self.register_buffer(name, torch.zeros(0, 0, 0), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The base layer's weight."""
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        """The base layer's bias."""
        return self.base_layer.bias

    @property
    def rank(self) -> int:
        """The largest rank of an adapter that fits."""
        return int(self.a.shape[1])

    def resize(self, slots: int, rank: int, dtype: torch.dtype) -> None:
        """Makes room for more slots or larger ranks; adapters that are loaded stay."""
        outer, inner = self.base_layer.out_features, self.base_layer.in_features
        old, kept, device = self.rank, len(self.a), self.base_layer.weight.device
        a = torch.zeros(slots, rank, inner, dtype=dtype, device=device)
        b = torch.zeros(slots, outer, rank, dtype=dtype, device=device)
        if kept:
            a[:kept, :old], b[:kept, :, :old] = self.a, self.b
        self.a, self.b = a, b

    def fill(self, slot: int, module: LoraModule | None) -> None:
        """Puts an adapter's matrices in a slot; None: the adapter does not change this layer."""
        self.a[slot].zero_()
        self.b[slot].zero_()
        if module is not None:
            self.a[slot, : module.rank].copy_(module.down)
            self.b[slot, :, : module.rank].copy_(module.up.float() * module.scale)

    def forward(self, x: Tensor) -> Tensor:
        """W x + B A x with the matrices of each row's slot. x: [rows, ..., in features]."""
        result = cast(Tensor, self.base_layer(x))
        index = self.route.index
        if index is None:
            return result
        index = index.repeat(x.shape[0] // index.shape[0])  # Qwen-Image-Edit-2511 shows some layers every row twice
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        return result + torch.bmm(torch.bmm(flat, self.a[index].mT), self.b[index].mT).view_as(result)


class SlotApplier(LoraApplier):
    """Runs a batch in one pass, each row with the expert in its slot."""

    kind: Literal["shared"] = "shared"
    """How this applier applies adapters."""

    def __init__(self, transformer: nn.Module, library: AdapterLibrary, *, byte_budget: int | None = None) -> None:
        """The layers and their ranks are those of the library's experts now; one that needs more recompiles the graphs."""
        super().__init__(transformer, library, byte_budget=byte_budget)
        self._dtype = compute_dtype(transformer)
        self._route = SlotRoute()
        self._layers: dict[str, SlotLinear] = {}
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        ranks: dict[str, int] = {}
        for name in library.names:
            for path, rank in library.ranks(name).items():
                ranks[path] = max(rank, ranks.get(path, 0))
        self._make_room(ranks, slots=0)
        fitting = len(library.names) if byte_budget is None else byte_budget // max(1, self._size(""))
        self._make_room({}, slots=min(len(library.names), max(1, fitting)) + 1)

    def velocity(self, rows: Sequence[str], inputs: Inputs) -> Tensor:
        """The velocity, shape [rows, tokens, channels], in one pass of the transformer."""
        check_known(rows, self.library.names)
        with self._lock, self._pool.lease(rows):
            slots = [0 if name == BASE else self._slots[name] for name in rows]
            self._route.index = torch.tensor(slots, device=next(self.transformer.parameters()).device)
            try:
                return run_transformer(self.transformer, inputs)
            finally:
                self._route.index = None

    def _size(self, name: str) -> int:
        """Bytes of one slot, which are the same for every expert."""
        weights = (layer.a[0].numel() + layer.b[0].numel() for layer in self._layers.values())
        return sum(weights) * self._dtype.itemsize

    def _load(self, name: str) -> None:
        state = self.library.load(name)
        self._make_room({path: module.rank for path, module in state.modules.items()}, slots=len(self._slots) + 2)
        slot = self._free.pop()
        try:
            with torch.inference_mode(False), torch.no_grad():
                for path, layer in self._layers.items():
                    layer.fill(slot, state.modules.get(path))
        except BaseException:
            self._free.append(slot)
            raise
        self._slots[name] = slot

    def _unload(self, name: str) -> None:
        self._free.append(self._slots.pop(name))

    def _make_room(self, ranks: Mapping[str, int], *, slots: int) -> None:
        """Gives every layer at least `slots` slots, and those in `ranks` at least their rank.

        The same layer of the other blocks gets that rank too, so that all blocks share their graphs.
        """
        widest: dict[str, int] = {}
        for path, rank in ranks.items():
            widest[_kind(path)] = max(rank, widest.get(_kind(path), 0))
        layers = (path for path, one in self.transformer.named_modules() if isinstance(one, nn.Linear | SlotLinear))
        ranks = {path: widest[_kind(path)] for path in layers if _kind(path) in widest}
        known = len(self._slots) + len(self._free) + 1
        slots = max(slots, known)
        with torch.inference_mode(False), torch.no_grad():
            for path in ranks.keys() - self._layers.keys():
                self._layers[path] = SlotLinear(cast(nn.Linear, self.transformer.get_submodule(path)), self._route)
                self.transformer.set_submodule(path, self._layers[path])
            for path, layer in self._layers.items():
                rank = max(layer.rank, ranks.get(path, 0))
                if (len(layer.a), layer.rank) != (slots, rank):
                    layer.resize(slots, rank, self._dtype)
        self._free += range(known, slots)


def _kind(path: str) -> str:
    """The path of a layer without the number of its block."""
    return re.sub(r"\.\d+\.", ".*.", path, count=1)
