"""How experts are applied: each row of a batch names the expert that computes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock, RLock
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

from careedit.errors import ExpertError
from careedit.experts.adapters import fit
from careedit.experts.formats import LoraState
from careedit.experts.manifest import Application
from careedit.experts.pool import LeasePool
from careedit.experts.shapes import BaseShapes
from careedit.records import BASE, unknown_expert

COMPILING: Mapping[str, Any] = MappingProxyType({"fullgraph": True, "dynamic": True, "recompile_limit": 64})
"""Options of `torch.compile` for the repeated blocks. Sizes are symbolic: a graph serves every number of rows above one and
every panel; one row has its own, because torch specialises sizes of one."""


class Inputs(NamedTuple):
    """The keyword arguments of a transformer's `forward` for one batch."""

    per_row: Mapping[str, Tensor]
    """Tensors whose first dimension is the rows of the batch."""
    shared: Mapping[str, Any]
    """Arguments that all rows share, such as positions."""
    rows: tuple[int, ...] = ()
    """Index of each row in the whole batch, after `take`; before it, the rows are the batch's own."""
    run: Callable[[nn.Module, Inputs], Tensor] | None = None
    """Calls the transformer for a base that keeps something between steps; None: a plain call."""

    def take(self, indices: Sequence[int]) -> Inputs:
        """The inputs of some rows, in the order of `indices`."""
        picks: dict[torch.device, Tensor] = {}
        for value in self.per_row.values():
            if value.device not in picks:
                picks[value.device] = torch.tensor(indices, dtype=torch.long, device=value.device)
        taken = {name: value.index_select(0, picks[value.device]) for name, value in self.per_row.items()}
        return self._replace(per_row=taken, rows=tuple(indices))


@runtime_checkable
class ExpertApplier(Protocol):
    """Runs the base's transformer with an expert per row of the batch."""

    @property
    def kind(self) -> Application:
        """How this applier applies adapters."""
        ...

    def velocity(self, rows: Sequence[str], inputs: Inputs) -> Tensor:
        """The transformer's output, row i computed by expert `rows[i]` (`BASE`: by no expert).

        `inputs` are the arguments of the transformer's `forward` for a batch of `len(rows)` rows. Returns the velocity,
        shape [rows, tokens, channels].
        Every name must be leased (`lease`) by the caller; an expert that the set lacks raises `UnknownExpertError`.
        """
        ...

    def lease(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Loads the named experts and keeps them loaded until the context ends; `BASE` needs no loading."""
        ...


class NoExperts:
    """The applier of a base without experts: every row must be `BASE`."""

    kind: Literal["merged"] = "merged"
    """The weights are always the base's own, as in merged application."""

    def __init__(self, transformer: nn.Module) -> None:
        self.transformer = transformer

    def velocity(self, rows: Sequence[str], inputs: Inputs) -> Tensor:
        """The base's velocity, shape [rows, tokens, channels]."""
        check_known(rows, ())
        return run_transformer(self.transformer, inputs)

    def lease(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Loads nothing; a name other than `BASE` raises `UnknownExpertError`."""
        check_known(names, ())
        return nullcontext()


class AdapterLibrary(Protocol):
    """Adapters by name, e.g. an `ExpertSet`; the sizes are known without reading weights."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names that `load` knows."""
        ...

    def parameters(self, name: str) -> int:
        """Number of weights of one adapter; raises `UnknownExpertError`."""
        ...

    def ranks(self, name: str) -> Mapping[str, int]:
        """Rank of each module that one adapter changes, by its path; raises `UnknownExpertError`."""
        ...

    def load(self, name: str) -> LoraState:
        """Reads and checks one adapter; raises `UnknownExpertError`, `AdapterError` or `BaseMismatchError`."""
        ...


class MemoryLibrary:
    """Adapters that are in memory already, e.g. those of a training run; they may be added and removed at run time."""

    def __init__(self, adapters: Mapping[str, LoraState], shapes: BaseShapes) -> None:
        self._shapes = shapes
        self._adapters: dict[str, LoraState] = {}
        self._lock = Lock()
        for name, state in adapters.items():
            self.add(name, state)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order in which they were added."""
        return tuple(self._adapters)

    def add(self, name: str, state: LoraState) -> None:
        """Adds or replaces one adapter; raises `BaseMismatchError` if it does not fit."""
        fitted = fit(state, self._shapes, f"The adapter {name!r}")
        with self._lock:
            self._adapters[name] = fitted

    def remove(self, name: str) -> None:
        """Removes one adapter; raises `UnknownExpertError`."""
        with self._lock:
            self.load(name)
            del self._adapters[name]

    def parameters(self, name: str) -> int:
        """Number of weights of one adapter."""
        return self.load(name).parameters

    def ranks(self, name: str) -> Mapping[str, int]:
        """Rank of each module of one adapter."""
        return {path: module.rank for path, module in self.load(name).modules.items()}

    def load(self, name: str) -> LoraState:
        """One adapter."""
        if name not in self._adapters:
            raise unknown_expert(name, self.names)
        return self._adapters[name]


class LoraApplier:
    """Base of the appliers: loads adapters from a library, under leases and a byte budget."""

    item_bytes = 4
    """Bytes that one weight of a loaded adapter takes."""
    compiled = False
    """Whether the transformer's repeated blocks are compiled (`compile`)."""

    def __init__(self, transformer: nn.Module, library: AdapterLibrary, *, byte_budget: int | None = None) -> None:
        """Takes ownership of `transformer`. `byte_budget` bounds the loaded adapters, in bytes; None: no bound."""
        self.transformer = transformer
        self.library = library
        self._lock = RLock()
        self._pool = LeasePool(
            size=self._size,
            load=self._load,
            unload=self._unload,
            budget=byte_budget,
            lock=self._lock,
        )

    def compile(self, **options: Any) -> None:
        """Compile the transformer's repeated blocks at their first pass; `options` replace `COMPILING`.

        Weights that are replaced in place keep the graphs. Raises `ExpertError` for a transformer without such blocks.
        """
        try:
            cast(Any, self.transformer).compile_repeated_blocks(**{**COMPILING, **options})
        except (ValueError, AttributeError) as error:
            name = type(self.transformer).__name__
            raise ExpertError(
                f"The blocks of {name} cannot be compiled, because diffusers names none; turn compilation off."
            ) from error
        self.compiled = True

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of the loaded adapters, least recently used first."""
        return self._pool.resident

    @property
    def resident_bytes(self) -> int:
        """Bytes that the loaded adapters take."""
        return self._pool.used

    def lease(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Loads the named adapters and keeps them loaded until the context ends.

        Raises `UnknownExpertError`, and `ExpertError` where they and those in use exceed the budget.
        """
        names = list(names)
        check_known(names, self.library.names)
        return self._pool.lease(names)

    def evict(self, name: str) -> None:
        """Unloads one expert after it was removed or replaced; raises `ExpertError` while it is leased."""
        with self._lock:
            self._pool.drop(name)

    def _size(self, name: str) -> int:
        """Bytes that an adapter takes once it is loaded."""
        return self.library.parameters(name) * self.item_bytes

    def _load(self, name: str) -> None:
        raise NotImplementedError

    def _unload(self, name: str) -> None:
        raise NotImplementedError


def compute_dtype(transformer: nn.Module) -> torch.dtype:
    """The number format that the transformer computes in; its weights may be stored in a smaller one."""
    dtype = getattr(transformer, "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else next(transformer.parameters()).dtype


def check_known(names: Iterable[str], known: Sequence[str]) -> None:
    """Raises `UnknownExpertError` for a name that is neither `BASE` nor one of `known`."""
    for name in names:
        if name != BASE and name not in known:
            raise unknown_expert(name, known)


def run_transformer(transformer: nn.Module, inputs: Inputs) -> Tensor:
    """The first output of the transformer: the velocity. Raises `ExpertError` if its blocks cannot be compiled."""
    try:
        if inputs.run is not None:
            rows = inputs.rows or tuple(range(len(inputs.per_row["hidden_states"])))
            return inputs.run(transformer, inputs._replace(rows=rows))
        return cast(Tensor, transformer(**inputs.per_row, **inputs.shared, return_dict=False)[0])
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ExpertError(
            f"The blocks of {type(transformer).__name__} cannot be compiled, so turn compilation off: {reason}."
        ) from error


def group_rows(rows: Sequence[str]) -> dict[str, list[int]]:
    """Row indices per name, names in the order of their first row."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(rows):
        groups.setdefault(name, []).append(index)
    return groups
