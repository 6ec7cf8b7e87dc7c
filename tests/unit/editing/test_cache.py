"""The encoding cache: content in, tensors out, never more bytes than allowed."""

from __future__ import annotations

import pytest
import torch

from careedit.editing.cache import EncodingCache


def kilobytes(count: int) -> tuple[torch.Tensor, ...]:
    return (torch.zeros(count * 1024, dtype=torch.uint8),)


def fail() -> tuple[torch.Tensor, ...]:
    raise AssertionError("encoded again")


def test_a_second_look_up_returns_the_first_ones_tensors():
    cache = EncodingCache()

    first = cache.get("a", lambda: kilobytes(1))

    assert cache.get("a", fail) is first
    assert (cache.hits, cache.misses) == (1, 1)


def test_the_least_recently_used_encoding_goes_first():
    cache = EncodingCache(max_bytes=2 * 1024)
    for key in ("a", "b", "a", "c"):
        cache.get(key, lambda: kilobytes(1))

    cache.get("a", fail)
    with pytest.raises(AssertionError):
        cache.get("b", fail)
    assert cache.nbytes == 2 * 1024


def test_an_encoding_larger_than_the_cache_is_returned_but_not_kept():
    cache = EncodingCache(max_bytes=1024)
    cache.get("small", lambda: kilobytes(1))

    assert cache.get("large", lambda: kilobytes(3))[0].nbytes == 3 * 1024
    assert (len(cache), cache.nbytes) == (1, 1024)


def test_a_failed_encoding_leaves_no_entry():
    cache = EncodingCache()
    with pytest.raises(AssertionError):
        cache.get("a", fail)

    assert len(cache) == 0


def test_clearing_forgets_everything():
    cache = EncodingCache()
    cache.get("a", lambda: kilobytes(1))
    cache.clear()

    assert (len(cache), cache.nbytes) == (0, 0)
