"""Shared application: many experts beside one base, a batch may mix them row by row.

The adapters are ordinary peft LoRA layers under one `LoraModel`, and what is computed is peft's
mixed-adapter batch (`LoraLayer._mixed_batch_forward`). peft picks and writes back rows by index in every layer; here the
batch is ordered by expert once per pass instead, so that in every layer an expert's rows are one contiguous slice that
two matrix products update in place. A test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from threading import RLock
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from careedit.experts.formats import LoraState
from careedit.experts.library import AdapterLibrary
from careedit.experts.pool import LeasePool
from careedit.experts.rows import group_rows, take_rows
from careedit.records import BASE, unknown_expert

Spans = tuple[tuple[str, int, int], ...]
"""(peft adapter name, first row, one past the last row) per expert of an ordered batch; base rows have none."""


class Route:
    """Which rows of the batch under way belong to which adapter; every routed layer of a transformer reads one."""

    def __init__(self) -> None:
        self.spans: Spans | None = None
        """None outside `SharedApplier.velocity`."""


class RoutedLinear(LoraLinear):
    """peft's LoRA linear layer, with its mixed-adapter batch done on slices of an ordered batch.

    Called outside `SharedApplier.velocity`, or with peft's own `adapter_names`, it behaves as peft's does.
    """

    route: Route | None = None
    """Set by the applier after injection."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """W x, plus (alpha / rank) * B A x for the rows of each span. x: [rows, ..., in features]."""
        spans = None if self.route is None else self.route.spans
        if spans is None or kwargs:
            return super().forward(x, *args, **kwargs)
        result = cast(Tensor, self.base_layer(x))
        downs, ups = self.lora_A._modules, self.lora_B._modules
        for name, start, stop in spans:
            if name not in downs:  # this expert does not target this layer
                continue
            down, up = cast(Tensor, downs[name].weight), cast(Tensor, ups[name].weight)
            rows = x[start:stop].reshape(-1, x.shape[-1])
            target = result[start:stop].view(-1, result.shape[-1])
            target.addmm_(rows @ down.t(), up.t(), alpha=self.scaling[name])
        return result


class SharedApplier:
    """Runs a batch in one pass, each row with its own expert; experts come and go under a byte budget."""

    kind: Literal["shared"] = "shared"
    """How this applier applies adapters."""

    def __init__(self, transformer: nn.Module, library: AdapterLibrary, *, byte_budget: int | None = None) -> None:
        """`byte_budget` bounds the weights of the loaded adapters, in bytes; None: all that were used stay."""
        self.transformer = transformer
        self.library = library
        self._lock = RLock()
        self._route = Route()
        self._tuner: LoraModel | None = None
        self._width = next(transformer.parameters()).element_size()
        self._pool = LeasePool(
            size=lambda name: library.parameters(name) * self._width,
            load=self._load,
            unload=self._unload,
            budget=byte_budget,
            lock=self._lock,
        )

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of the loaded adapters, least recently used first."""
        return self._pool.resident

    @property
    def resident_bytes(self) -> int:
        """Bytes that their weights take."""
        return self._pool.used

    def lease(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Loads the named adapters and keeps them loaded until the context ends.

        Raises `UnknownExpertError`, and `ExpertError` where they do not fit the budget beside those in use.
        """
        return self._pool.lease(self._known(names))

    def velocity(self, rows: Sequence[str], inputs: Mapping[str, Any]) -> Tensor:
        """The velocity, shape [rows, tokens, channels], in one pass of the transformer."""
        self._known(rows)
        with self._lock, self._pool.lease(rows):
            groups = group_rows(rows)
            order = [index for indices in groups.values() for index in indices]
            ordered = order == list(range(len(rows)))
            spans: list[tuple[str, int, int]] = []
            start = 0
            for name, indices in groups.items():
                if name != BASE:
                    spans.append((_peft_name(name), start, start + len(indices)))
                start += len(indices)
            self._route.spans = tuple(spans)
            try:
                taken = inputs if ordered else take_rows(inputs, order, len(rows))
                output = cast(Tensor, self.transformer(**{**taken, "return_dict": False})[0])
            finally:
                self._route.spans = None
            if ordered:
                return output
            back = torch.empty(len(rows), dtype=torch.long)
            back[torch.tensor(order)] = torch.arange(len(rows))
            return output.index_select(0, back.to(output.device))

    def forget(self, name: str) -> None:
        """Unloads one expert, after it was removed or replaced; `ExpertError` while it is leased."""
        with self._lock:
            self._pool.drop(name)

    def _load(self, name: str) -> None:
        state = self.library.load(name)
        try:
            self._inject(name, state)
        except BaseException:  # above all out of memory: leave no half-loaded adapter behind
            self._unload(name)
            raise

    def _inject(self, name: str, state: LoraState) -> None:
        adapter = _peft_name(name)
        with torch.inference_mode(False), torch.no_grad():
            config = _config(state)
            # peft finds the modules by these keys; the weights are set below.
            found = {f"{path}.lora_A": module.down for path, module in state.modules.items()}
            if self._tuner is None:
                self._tuner = LoraModel(self.transformer, config, adapter, True, found)
            else:
                self._tuner.peft_config[adapter] = config
                self._tuner.inject_adapter(self.transformer, adapter, low_cpu_mem_usage=True, state_dict=found)
            for path, module in state.modules.items():
                layer = cast(RoutedLinear, self.transformer.get_submodule(path))
                layer.route = self._route
                weight = cast(Tensor, layer.get_base_layer().weight)
                for side, tensor in ((layer.lora_A, module.down), (layer.lora_B, module.up)):
                    held = tensor.to(weight.device, weight.dtype, copy=True).contiguous()
                    side[adapter].weight = nn.Parameter(held, requires_grad=False)
                layer.set_adapter([])  # outside `velocity` the transformer is the plain base
            self.transformer.eval()

    def _unload(self, name: str) -> None:
        if self._tuner is not None and _peft_name(name) in self._tuner.peft_config:
            self._tuner.delete_adapter(_peft_name(name))

    def _known(self, names: Iterable[str]) -> list[str]:
        known = self.library.names
        listed = list(names)
        for name in listed:
            if name != BASE and name not in known:
                raise unknown_expert(name, known)
        return listed


def _peft_name(name: str) -> str:
    """peft keeps adapters in `ModuleDict`s, where a name such as "type" or "pop" would hide a method."""
    return f"expert-{name}"


def _config(state: LoraState) -> LoraConfig:
    """peft's configuration for exactly the modules of `state`, each with its own rank and alpha."""
    paths = [path.replace(".", r"\.") for path in state.modules]
    config = LoraConfig(
        r=state.rank,
        lora_alpha=state.alpha,  # type: ignore[arg-type]  # peft computes with it as a float
        target_modules="|".join(paths),
        rank_pattern={
            f"^{p}": m.rank for p, m in zip(paths, state.modules.values(), strict=True) if m.rank != state.rank
        },
        alpha_pattern={
            f"^{p}": m.alpha for p, m in zip(paths, state.modules.values(), strict=True) if m.alpha != state.alpha
        },
        inference_mode=True,
        lora_dropout=0.0,
    )
    config._register_custom_module({nn.Linear: RoutedLinear})
    return config
