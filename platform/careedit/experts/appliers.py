"""The two ways to apply experts: merged into the base's weights, or shared by the rows of a batch.

Shared application uses ordinary peft LoRA layers under one `LoraModel`, and computes what peft computes for a mixed-adapter
batch (`LoraLayer._mixed_batch_forward`). peft picks and writes back rows by index in every layer. Here the batch is ordered
by expert once per pass, so that in every layer an expert's rows are one contiguous slice that two matrix products update in
place. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from careedit.errors import ExpertError
from careedit.experts.applier import (
    AdapterLibrary,
    ExpertApplier,
    Inputs,
    LoraApplier,
    check_known,
    compute_dtype,
    group_rows,
    run_transformer,
)
from careedit.experts.formats import LoraState
from careedit.experts.manifest import Application
from careedit.experts.slots import SlotApplier
from careedit.records import BASE


def make_applier(
    transformer: nn.Module,
    library: AdapterLibrary,
    application: Application,
    *,
    byte_budget: int | None = None,
    compiled: bool = False,
) -> ExpertApplier:
    """An applier that owns `transformer` and takes experts from `library`, e.g. an `ExpertSet`.

    Shared experts are in slots on a GPU or with compiled blocks, and in spans elsewhere (`careedit.experts.slots`); both
    compute the same. `byte_budget` bounds the adapters that are loaded at the same time, in bytes; None keeps every adapter
    that was used. `compiled`: the transformer's repeated blocks are compiled at their first pass.
    """
    on_gpu = next(transformer.parameters()).device.type == "cuda"
    shared: type[LoraApplier] = SlotApplier if on_gpu or compiled else SharedApplier
    kind = MergedApplier if application == "merged" else shared
    applier = kind(transformer, library, byte_budget=byte_budget)
    if compiled:
        applier.compile()
    return cast(ExpertApplier, applier)


@torch.no_grad()
def merge_for_good(transformer: nn.Module, state: LoraState) -> None:
    """Adds a LoRA that is part of the base to the weights: in float32, rounded once to the weights' own number format."""
    for path, module in state.modules.items():
        weight = cast(Tensor, transformer.get_submodule(path).weight)
        weight.copy_(module.added_to(weight))


def refuse_quantised(quantisation: str | None) -> None:
    """Raise `ExpertError` for weights that are quantised: a merged expert would be rounded to their coarse format."""
    if quantisation is not None:
        raise ExpertError(
            f"Experts cannot be merged into {quantisation} weights, which are too coarse for them; use the application "
            "shared, or no quantisation."
        )


class MergedApplier(LoraApplier):
    """Runs a batch in one pass per expert, after merging that expert into the weights; a step costs nothing more.

    Every merge starts from a pristine copy of the targeted weights and computes W + (alpha / rank) * B @ A in float32,
    so that A, then B, then A again gives the same bits. The copy is kept in the weights' own number format, which
    float32 represents exactly: same bits, half the memory for a bfloat16 base.
    """

    kind: Literal["merged"] = "merged"
    """How this applier applies adapters."""

    def __init__(self, transformer: nn.Module, library: AdapterLibrary, *, byte_budget: int | None = None) -> None:
        super().__init__(transformer, library, byte_budget=byte_budget)
        refuse_quantised(getattr(transformer, "quantisation", None))
        self.active = BASE
        """Name of the expert that is merged now; `BASE` for none."""
        self._loaded: dict[str, LoraState] = {}
        self._pristine: dict[str, Tensor] = {}
        self._merged: set[str] = set()

    def velocity(self, rows: Sequence[str], inputs: Inputs) -> Tensor:
        """The velocity, shape [rows, tokens, channels]: one pass per expert, the merged one first."""
        check_known(rows, self.library.names)
        with self._lock, self._pool.lease(rows):
            groups = group_rows(rows)
            if len(groups) == 1:
                self.merge(rows[0])
                return run_transformer(self.transformer, inputs)
            order = sorted(groups, key=lambda name: name != self.active)
            parts: dict[int, Tensor] = {}
            for name in order:
                self.merge(name)
                output = run_transformer(self.transformer, inputs.take(groups[name]))
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
                    weight.copy_(module.added_to(self._pristine[path]))
            self.active = name

    def _weight(self, path: str) -> Tensor:
        return cast(Tensor, self.transformer.get_submodule(path).weight)

    def _load(self, name: str) -> None:
        self._loaded[name] = self.library.load(name)

    def _unload(self, name: str) -> None:
        if self.active == name:
            self.merge(BASE)
        del self._loaded[name]


Spans = tuple[tuple[str, int, int], ...]
"""(peft adapter name, first row, one past the last row) per expert of an ordered batch; base rows have none."""


class Route:
    """The rows of each adapter in the running batch; all routed layers of a transformer read the same one."""

    def __init__(self) -> None:
        self.spans: Spans | None = None
        """None outside `SharedApplier.velocity`."""
        self.rows = 0
        """Number of rows of the running batch."""

    def repeated(self, spans: Spans, count: int) -> Iterator[tuple[str, int, int]]:
        """`spans` for a layer that sees `count` rows.

        Qwen-Image-Edit-2511 (`zero_cond_t`) shows some layers the batch twice, one copy after the other.
        """
        for first in range(0, count, self.rows):
            yield from ((name, first + start, first + stop) for name, start, stop in spans)


class RoutedLinear(LoraLinear):
    """peft's LoRA linear layer, that computes a mixed-adapter batch on slices of an ordered batch.

    Called outside `SharedApplier.velocity`, or with peft's own `adapter_names`, it behaves as peft's does.
    """

    route: Route | None = None
    """Set by the applier after injection."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """W x, plus (alpha / rank) * B A x for the rows of each span. x: [rows, ..., in features]."""
        route = self.route
        spans = None if route is None else route.spans
        if route is None or spans is None or kwargs:
            return super().forward(x, *args, **kwargs)
        result = cast(Tensor, self.base_layer(x))
        downs, ups = self.lora_A._modules, self.lora_B._modules
        for name, start, stop in route.repeated(spans, len(x)):
            if name not in downs:  # this expert does not target this layer
                continue
            down, up = cast(Tensor, downs[name].weight), cast(Tensor, ups[name].weight)
            rows = x[start:stop].reshape(-1, x.shape[-1])
            target = result[start:stop].view(-1, result.shape[-1])
            target.addmm_(rows @ down.t(), up.t(), alpha=self.scaling[name])
        return result


class SharedApplier(LoraApplier):
    """Runs a batch in one pass, each row with its own expert; experts are loaded and evicted under a byte budget."""

    kind: Literal["shared"] = "shared"
    """How this applier applies adapters."""

    def __init__(self, transformer: nn.Module, library: AdapterLibrary, *, byte_budget: int | None = None) -> None:
        super().__init__(transformer, library, byte_budget=byte_budget)
        self._dtype = compute_dtype(transformer)
        self.item_bytes = self._dtype.itemsize
        self._route = Route()
        self._tuner: LoraModel | None = None

    def velocity(self, rows: Sequence[str], inputs: Inputs) -> Tensor:
        """The velocity, shape [rows, tokens, channels], in one pass of the transformer."""
        check_known(rows, self.library.names)
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
            self._route.spans, self._route.rows = tuple(spans), len(rows)
            try:
                taken = inputs if ordered else inputs.take(order)
                output = run_transformer(self.transformer, taken)
            finally:
                self._route.spans = None
            if ordered:
                return output
            back = torch.empty(len(rows), dtype=torch.long)
            back[torch.tensor(order)] = torch.arange(len(rows))
            return output.index_select(0, back.to(output.device))

    def _load(self, name: str) -> None:
        state = self.library.load(name)
        try:
            self._inject(name, state)
        except BaseException:  # most often out of memory: leave no half-loaded adapter behind
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
                    placed = tensor.to(weight.device, self._dtype, copy=True).contiguous()
                    side[adapter].weight = nn.Parameter(placed, requires_grad=False)
                layer.set_adapter([])  # outside `velocity` the transformer is the plain base
            self.transformer.eval()

    def _unload(self, name: str) -> None:
        if self._tuner is not None and _peft_name(name) in self._tuner.peft_config:
            self._tuner.delete_adapter(_peft_name(name))


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
