"""Training data made by several processes, in order.

Drawing is Python code of one core. So items are made in processes, as many as torch has threads, while this one encodes what
is ready. The results are the same with any number of processes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

Made = TypeVar("Made")


class _Indexed(Dataset[Any]):
    """A function of an index as torch's loader wants it."""

    def __init__(self, function: Callable[[int], Any]) -> None:
        self.function = function

    def __getitem__(self, index: int) -> Any:
        return self.function(index)


def processes() -> int:
    """Number of processes for `in_order`: torch's number of threads (`--threads`), or 0, this process, for one thread."""
    threads = torch.get_num_threads()
    return threads if threads > 1 else 0


def in_order(
    function: Callable[[int], Made], groups: Sequence[Sequence[int]], workers: int | None = None
) -> Iterator[list[Made]]:
    """What `function` makes of the indices of each group, group by group. Up to two groups per process are made ahead.

    With `workers` above 0 the function must be importable by name, or a `functools.partial` of such a function. The default
    is `processes()`, at most one per group.
    """
    count = min(processes() if workers is None else workers, len(groups))
    # A child of a fork would have this one's locks, and perhaps its GPU. A server with the imports done forks instead.
    server = multiprocessing.get_context("forkserver") if count else None
    if server is not None:
        server.set_forkserver_preload([getattr(function, "func", function).__module__])
    loader: DataLoader[Any] = DataLoader(
        _Indexed(function),
        batch_sampler=[list(group) for group in groups],
        collate_fn=_as_is,
        num_workers=count,
        multiprocessing_context=server,
        generator=torch.Generator(),  # so that torch's own generator stays as it is
    )
    yield from loader


def _as_is(items: list[Any]) -> list[Any]:
    return items
