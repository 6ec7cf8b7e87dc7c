"""A cache of encodings across edits: the same picture or text is encoded once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock

from cachetools import LRUCache
from torch import Tensor

Tensors = tuple[Tensor, ...]


class EncodingCache:
    """A least-recently-used cache of encodings, limited by the bytes of their tensors.

    Keys are content hashes, so a second seed, a second turn or another edit of the same picture hits. One cache serves
    one base: the key does not name the weights.
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._entries: LRUCache[Hashable, Tensors] = LRUCache(max_bytes, getsizeof=_size)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of the cached tensors, at most `max_bytes`."""
        return int(self._entries.currsize)

    def get(self, key: Hashable, encode: Callable[[], Tensors]) -> Tensors:
        """The encoding under `key`, computed by `encode` on a miss; one larger than the cache is not kept."""
        if (kept := self.find(key)) is not None:
            return kept
        # Outside the lock: an encoding takes long, and two threads that make the same one do no harm.
        value = encode()
        self.keep(key, value)
        return value

    def find(self, key: Hashable) -> Tensors | None:
        """The encoding under `key`, or None."""
        with self._lock:
            kept: Tensors | None = self._entries.get(key)
            if kept is None:
                self.misses += 1
            else:
                self.hits += 1
            return kept

    def keep(self, key: Hashable, value: Tensors) -> None:
        """Keep an encoding, unless it is larger than the cache."""
        if _size(value) <= self.max_bytes:
            with self._lock:
                self._entries[key] = value

    def clear(self) -> None:
        """Remove all entries, for instance after the weights changed."""
        with self._lock:
            self._entries.clear()


def _size(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors)
