"""The loaded adapters: a byte budget, leases that pin adapters, and eviction of the least recently used one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock

from careedit.errors import ExpertError
from careedit.records import BASE


@dataclass
class _Resident:
    size: int
    leases: int = 0


class LeasePool:
    """Keeps adapters loaded under a byte budget. A leased adapter is never evicted."""

    def __init__(
        self,
        *,
        size: Callable[[str], int],
        load: Callable[[str], None],
        unload: Callable[[str], None],
        budget: int | None,
        lock: RLock,
    ) -> None:
        self._size, self._load, self._unload = size, load, unload
        self._budget = budget
        self._lock = lock
        self._resident: OrderedDict[str, _Resident] = OrderedDict()

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of the loaded adapters, least recently used first."""
        with self._lock:
            return tuple(self._resident)

    @property
    def used(self) -> int:
        """Bytes that the loaded adapters take."""
        with self._lock:
            return sum(entry.size for entry in self._resident.values())

    @contextmanager
    def lease(self, names: Iterable[str]) -> Iterator[None]:
        """Loads `names` and pins them until the context ends.

        Raises `ExpertError` if they and those in use exceed the budget; then nothing stays pinned.
        """
        wanted = [name for name in dict.fromkeys(names) if name != BASE]
        pinned: list[str] = []
        try:
            with self._lock:
                # Pin the loaded ones first, so that making room for one of `names` never evicts another.
                for name in sorted(wanted, key=lambda name: name not in self._resident):
                    self._ensure(name)
                    self._resident[name].leases += 1
                    self._resident.move_to_end(name)
                    pinned.append(name)
            yield
        finally:
            with self._lock:
                for name in pinned:
                    self._resident[name].leases -= 1

    def drop(self, name: str) -> None:
        """Unloads one adapter; raises `ExpertError` while it is leased, does nothing if it is not loaded."""
        with self._lock:
            entry = self._resident.get(name)
            if entry is None:
                return
            if entry.leases:
                raise ExpertError(f"The expert {name!r} is in use by {entry.leases} edits; wait for them to end.")
            del self._resident[name]
            self._unload(name)

    def _ensure(self, name: str) -> None:
        if name in self._resident:
            return
        size = self._size(name)
        if self._budget is not None:
            pinned = sum(entry.size for entry in self._resident.values() if entry.leases)
            if pinned + size > self._budget:
                raise ExpertError(
                    f"The expert {name!r} needs {_mib(size)} but only {_mib(self._budget - pinned)} of the budget of "
                    f"{_mib(self._budget)} are not in use; raise the budget or wait for running edits to end."
                )
            for other in [key for key, entry in self._resident.items() if not entry.leases]:
                if self.used + size <= self._budget:
                    break
                self.drop(other)
        self._load(name)
        self._resident[name] = _Resident(size)


def _mib(size: int) -> str:
    return f"{max(size, 0) / 2**20:.2f} MiB"
