"""The tiny backbones stand under their own names and read what the tiny benchmark says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from careedit_eval.errors import MetricError
from careedit_eval.metrics import backbones, load_metric
from careedit_tiny import SPLITS, plugin
from careedit_tiny.evaluation.humanedit import OPERATIONS, draw
from careedit_tiny.models.clip import save_clip, untrained_encoder
from careedit_tiny.models.dino import build_dino, save_dino
from careedit_tiny.recipes.clip.captions import caption_of


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose weights are these."""
    monkeypatch.setattr(plugin, "WEIGHTS", tmp_path)
    for cached in (backbones.clip_backbone, backbones.vit_backbone):
        cached.cache_clear()
    yield tmp_path
    for cached in (backbones.clip_backbone, backbones.vit_backbone):
        cached.cache_clear()


def test_a_package_without_them_says_so(weights: Path) -> None:
    for name in ("clip_i", "dino"):
        with pytest.raises(MetricError, match=r"has no tiny (clip|dino); name another model"):
            load_metric(name, protocol="tiny-v1")


def test_they_are_metrics_of_their_own(weights: Path) -> None:
    save_clip(untrained_encoder().model, weights / "clip")
    save_dino(build_dino(0), weights / "dino")
    clip, dino = (load_metric(name, protocol="tiny-v1").spec for name in ("clip_i", "dino"))
    assert (clip.protocol, clip.backbone) == ("tiny-v1", "open_clip tiny")
    assert (dino.protocol, dino.backbone) == ("tiny-v1", "transformers tiny")
    assert clip.preprocessing.startswith("squash 64, bicubic")


def test_other_weights_are_another_metric(weights: Path) -> None:
    keys = set()
    for seed in (0, 1):
        backbones.vit_backbone.cache_clear()
        save_dino(build_dino(seed), weights / "dino")
        keys.add(load_metric("dino", protocol="tiny-v1").spec.key)
    assert len(keys) == 2


def test_captions_of_the_tiny_benchmark_fit_into_the_tiny_clip(weights: Path) -> None:
    save_clip(untrained_encoder().model, weights / "clip")
    backbone = load_metric("clip_t", protocol="tiny-v1").backbone  # type: ignore[attr-defined]
    operations = dict.fromkeys(operation for both in OPERATIONS.values() for operation in both)
    names = [f"{operation}-{SPLITS['test'].start + i}" for operation in operations for i in range(66)]
    captions = {name: str(caption_of(draw(name).target, Random(name), whole=True)) for name in names}
    assert [name for name, caption in captions.items() if backbone.is_cut(caption)] == []
