"""A cache of encodings across edits: the same picture or text is encoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

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
        self._entries: OrderedDict[Hashable, Tensors] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of the cached tensors, at most `max_bytes`."""
        return self._bytes

    def get(self, key: Hashable, encode: Callable[[], Tensors]) -> Tensors:
        """The encoding under `key`, computed by `encode` on a miss; one larger than the cache is not kept."""
        with self._lock:
            if key in self._entries:
                self.hits += 1
                self._entries.move_to_end(key)
                return self._entries[key]
            self.misses += 1
        # Outside the lock: an encoding takes long, and two threads making the same one do no harm.
        value = encode()
        with self._lock:
            self._keep(key, value)
        return value

    def clear(self) -> None:
        """Remove all entries, for instance after the weights changed."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def _keep(self, key: Hashable, value: Tensors) -> None:
        if key in self._entries or _size(value) > self.max_bytes:
            return
        self._entries[key] = value
        self._bytes += _size(value)
        while self._bytes > self.max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= _size(dropped)


def _size(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors)
