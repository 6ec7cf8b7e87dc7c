"""The small bases of all families."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from diffusers.pipelines.longcat_image import pipeline_longcat_image_edit
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus

from lora_files import BUILDERS


@pytest.fixture
def small_bases_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", 64 * 64)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", 64 * 64)
    own = pipeline_longcat_image_edit.calculate_dimensions
    monkeypatch.setattr(pipeline_longcat_image_edit, "calculate_dimensions", lambda area, ratio: own(64 * 64, ratio))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft: "proj_out" would also match other modules
        yield


@pytest.fixture(scope="session")
def bases() -> Callable[[str], Any]:
    """The pipeline of a name, built once; `own(pipe)` is a copy whose transformer a test may change."""
    return cache(lambda name: BUILDERS[name]())
