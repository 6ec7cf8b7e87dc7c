"""The tiny DINO's architecture, its files, and how any vision transformer is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from careedit.encoders.vit import load_vit
from careedit.errors import ExpertError
from careedit_tiny.models.dino import build_dino, save_dino, to_pixels


@pytest.fixture(scope="module")
def model():
    return build_dino(seed=1)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("dino") / "dino"
    save_dino(model, made)
    return made


def scenes(draw_picture, count: int = 3) -> list[Image.Image]:
    return [draw_picture(seed=seed) for seed in range(count)]


def test_it_has_about_a_million_parameters_and_the_seed_fixes_them(model) -> None:
    assert 0.9e6 < sum(p.numel() for p in model.parameters()) < 1.1e6
    same, other = build_dino(seed=1).state_dict(), build_dino(seed=2).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in model.state_dict().items())
    assert not all(torch.equal(value, other[name]) for name, value in model.state_dict().items())


def test_what_was_saved_gives_the_same_features(model, folder: Path, draw_picture) -> None:
    pictures = scenes(draw_picture)
    with torch.inference_mode():
        pixels = to_pixels(np.stack([np.asarray(picture) for picture in pictures]))
        wanted = model.eval()(pixel_values=pixels).last_hidden_state[:, 0]
    found = load_vit(folder).features(pictures)
    assert found.shape == (3, 128)
    assert found.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(found, wanted).min() > 0.999  # the file holds 16 bits per weight


def test_a_batch_of_any_size_gives_each_picture_its_own_features(folder: Path, draw_picture) -> None:
    pictures = scenes(draw_picture)
    whole, parted = load_vit(folder), load_vit(folder, batch=2)
    assert torch.allclose(whole.features(pictures), parted.features(pictures), atol=1e-5)
    assert not torch.allclose(whole.features(pictures[:1]), whole.features(pictures[1:2]), atol=1e-3)
    assert whole.features([]).shape == (0, whole.width)


def test_pictures_of_other_sizes_and_modes_are_fitted_in(folder: Path, draw_picture) -> None:
    encoder = load_vit(folder)
    picture = draw_picture((64, 64))
    assert torch.allclose(
        encoder.features([picture]), encoder.features([picture.resize((128, 128), Image.Resampling.NEAREST)]), atol=0.2
    )
    assert encoder.features([picture.convert("L"), draw_picture((90, 40))]).shape == (2, 128)


def test_a_protocol_may_bring_its_own_preprocessing(folder: Path, draw_picture) -> None:
    seen: list[Image.Image] = []

    def black(image: Image.Image) -> torch.Tensor:
        seen.append(image)
        return torch.zeros(3, 64, 64)

    features = load_vit(folder, preprocess=black).features(scenes(draw_picture, 2))
    assert torch.equal(features[0], features[1])
    assert [image.mode for image in seen] == ["RGB", "RGB"]


def test_saving_replaces_what_was_there_and_names_no_path(model, tmp_path: Path) -> None:
    (tmp_path / "dino").mkdir()
    (tmp_path / "dino/old.txt").write_text("old")
    save_dino(model, tmp_path / "dino")
    assert sorted(path.name for path in (tmp_path / "dino").iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert list(tmp_path.iterdir()) == [tmp_path / "dino"]
    assert (tmp_path / "dino/model.safetensors").stat().st_size < 2.3e6
    assert str(tmp_path) not in (tmp_path / "dino/config.json").read_text()


@pytest.mark.parametrize("what", ["nothing", "empty", "another model"])
def test_what_is_no_vision_transformer_is_one_sentence(what: str, tmp_path: Path) -> None:
    if what == "empty":
        (tmp_path / what).mkdir()
    elif what == "another model":
        from transformers import BertConfig, BertModel

        small = BertConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=10
        )
        BertModel(small).save_pretrained(tmp_path / what)
    with pytest.raises(ExpertError, match=r"cannot be loaded|no class token") as caught:
        load_vit(tmp_path / what, preprocess=lambda image: torch.zeros(3, 64, 64))
    assert "\n" not in str(caught.value)
