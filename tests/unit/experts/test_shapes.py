from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig

from careedit.errors import InputError
from careedit.experts import (
    DEFAULT_TARGETS,
    FLUX_FILL_CONFIG,
    ICEDIT_TARGETS,
    adapter_share,
    shapes_of_config,
)


def test_an_expert_of_rank_32_is_under_three_percent_of_flux_fill():
    share = adapter_share(FLUX_FILL_CONFIG, rank=32)
    assert share.base == 11_902_391_360
    assert share.adapter == 130_744_320
    assert share.share < 0.03


def test_icedit_s_targets_give_the_size_of_its_released_file():
    share = adapter_share(FLUX_FILL_CONFIG, rank=32, targets=ICEDIT_TARGETS)
    header = 231_918_592 - 2 * share.adapter  # the released file, bfloat16
    assert share.modules == 343
    assert 8 < header < 200 * 2 * share.modules


def test_the_count_is_that_of_a_real_adapter(shapes, lora):
    share = adapter_share(shapes, rank=16)
    assert share.adapter == lora(1, rank=16).parameters
    assert share.base == shapes.count


@pytest.mark.parametrize("targets", [DEFAULT_TARGETS, ICEDIT_TARGETS])
def test_peft_targets_the_same_modules(transformer, shapes, targets):
    transformer.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=targets))
    added = sum(p.numel() for name, p in transformer.named_parameters() if ".lora_" in name)
    assert added == adapter_share(shapes, rank=8, targets=targets).adapter


def test_the_fingerprint_is_known_from_the_configuration_and_changes_with_a_shape(pristine, shapes):
    config = dict(pristine.config)
    assert shapes_of_config(config).fingerprint == shapes.fingerprint
    assert shapes_of_config(config | {"num_layers": 1}).fingerprint != shapes.fingerprint
    assert shapes_of_config(config | {"in_channels": 96}).fingerprint != shapes.fingerprint


def test_counting_a_base_allocates_nothing(monkeypatch):
    devices: set[str] = set()
    empty = torch.nn.Linear.__init__

    def watch(self: torch.nn.Linear, *args: Any, **kwargs: Any) -> None:
        empty(self, *args, **kwargs)
        devices.add(self.weight.device.type)

    monkeypatch.setattr(torch.nn.Linear, "__init__", watch)
    shapes_of_config({"num_layers": 1, "num_single_layers": 1})
    assert devices == {"meta"}


def test_targets_that_match_nothing_are_refused(shapes):
    with pytest.raises(InputError, match="No linear module"):
        adapter_share(shapes, targets="mlp")
