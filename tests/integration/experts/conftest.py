"""The small bases of all families."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch

import small_bases
from lora_files import BUILDERS


@pytest.fixture
def small_bases_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    small_bases.use_small_areas(monkeypatch)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft: "proj_out" would also match other modules
        yield


@pytest.fixture(scope="session")
def bases() -> Callable[[str], Any]:
    """The pipeline of a name, built once; `own(pipe)` is a copy whose transformer a test may change."""
    return cache(lambda name: BUILDERS[name]())
