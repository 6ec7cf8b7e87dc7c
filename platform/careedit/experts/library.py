"""Where an applier gets its adapters from, by name."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Protocol

from careedit.experts.check import fit
from careedit.experts.fingerprint import BaseShapes
from careedit.experts.formats import LoraState
from careedit.records import unknown_expert


class AdapterLibrary(Protocol):
    """Adapters by name; the sizes are known without reading weights."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names that `load` knows."""
        ...

    def parameters(self, name: str) -> int:
        """Number of weights of one adapter; raises `UnknownExpertError`."""
        ...

    def load(self, name: str) -> LoraState:
        """Reads one adapter, checked; raises `UnknownExpertError`, `AdapterError` or `BaseMismatchError`."""
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
        """All names, in the order they were added."""
        return tuple(self._adapters)

    def add(self, name: str, state: LoraState) -> None:
        """Adds or replaces one adapter; raises `BaseMismatchError` if it does not fit."""
        fitted = fit(state, self._shapes, f"The adapter {name!r}")
        with self._lock:
            self._adapters[name] = fitted

    def remove(self, name: str) -> None:
        """Forgets one adapter; raises `UnknownExpertError`."""
        with self._lock:
            self.load(name)
            del self._adapters[name]

    def parameters(self, name: str) -> int:
        """Number of weights of one adapter."""
        return self.load(name).parameters

    def load(self, name: str) -> LoraState:
        """One adapter."""
        if name not in self._adapters:
            raise unknown_expert(name, self.names)
        return self._adapters[name]
