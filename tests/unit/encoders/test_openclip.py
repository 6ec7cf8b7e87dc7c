"""Any open_clip model as an encoder; no hub is asked."""

from __future__ import annotations

import open_clip
import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from careedit.encoders import OpenClipEncoder, load_encoder
from careedit.encoders.openclip import WEIGHTS_FILE
from careedit.errors import ExpertError
from careedit.routing import Encoder
from careedit_tiny.models.clip import build_clip, save_clip, tokenizer, untrained_encoder

VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


@pytest.fixture(scope="module")
def encoder():
    return untrained_encoder()


def test_it_gives_what_a_router_asks_for(encoder):
    asked: Encoder = encoder
    picture = Image.new("RGB", (90, 40), "red")
    assert asked.visual_tokens(picture).shape == (encoder.visual_count, asked.width) == (64, 128)
    assert asked.text_tokens("remove it").shape == (4, 128)  # a start token, two words, an end token


def test_the_end_tokens_state_is_the_texts_embedding(encoder):
    text = "put a red circle at the top!!"
    tokens = encoder.text_tokens(text)
    torch.testing.assert_close(F.normalize(tokens[-1], dim=0), encoder.text_embedding(text))


def test_a_patchs_token_is_the_towers_projected_state(encoder):
    picture = Image.new("RGB", (64, 64), "teal")
    visual = encoder.model.visual
    states = visual.ln_post(visual.transformer(visual._embeds(encoder._pixels(encoder._whole, [picture]))))
    torch.testing.assert_close(encoder.visual_tokens(picture), (states @ visual.proj)[0, 1:])


def test_a_batch_gives_what_one_by_one_gives(encoder):
    texts = ["a", "a longer text of several words", "!"]
    for alone, together in zip(map(encoder.text_tokens, texts), encoder.text_batch(texts), strict=True):
        torch.testing.assert_close(alone, together)


def test_a_text_longer_than_the_context_is_cut(encoder):
    assert encoder.text_tokens("red " * 200).shape == (48, 128)


def test_an_empty_text_has_its_two_tokens(encoder):
    assert encoder.text_tokens("").shape == (2, 128)


def test_tokens_see_what_a_centre_crop_would_lose(encoder):
    wide = Image.new("RGB", (192, 64), "white")
    marked = wide.copy()
    ImageDraw.Draw(marked).rectangle((0, 20, 30, 44), fill="red")
    assert not torch.equal(encoder.visual_tokens(wide), encoder.visual_tokens(marked))


def test_embeddings_have_length_one(encoder):
    picture = Image.new("RGB", (64, 64), "olive")
    for embedding in (encoder.image_embedding(picture), encoder.text_embedding("olive")):
        assert embedding.norm().item() == pytest.approx(1, abs=1e-5)


def test_the_same_content_is_encoded_once_and_old_content_is_forgotten():
    small = OpenClipEncoder(build_clip(), tokenizer(), cache_entries=2)
    first = small.text_tokens("one")
    assert small.text_tokens("one") is first
    small.visual_tokens(Image.new("RGB", (8, 8)))
    small.visual_tokens(Image.new("RGB", (8, 8)))
    assert small.text_tokens("one") is first
    small.text_tokens("two")
    small.text_tokens("three")
    assert small.text_tokens("one") is not first


def test_a_local_folder_is_loaded_without_a_hub(encoder, tmp_path):
    save_clip(encoder.model, tmp_path / "clip")
    for source in (tmp_path / "clip", f"local-dir:{tmp_path / 'clip'}"):
        loaded = load_encoder(source)
        torch.testing.assert_close(loaded.text_tokens("hi"), encoder.text_tokens("hi"), atol=5e-3, rtol=1e-2)


@pytest.mark.parametrize("vision", [VISION, VISION | {"pool_type": "avg", "final_ln_after_pool": True}])
@pytest.mark.parametrize("kind", [open_clip.CLIP, open_clip.CustomTextCLIP])
def test_both_of_open_clips_classes_are_read(kind, vision):
    made = OpenClipEncoder(kind(24, dict(vision), dict(TEXT)), open_clip.SimpleTokenizer(context_length=16))
    tokens = made.text_tokens("a red circle")
    assert made.visual_tokens(Image.new("RGB", (32, 32))).shape == (16, 24)
    torch.testing.assert_close(F.normalize(tokens[-1], dim=0), made.text_embedding("a red circle"))


def test_a_residual_tower_gives_its_grid():
    vision = {"image_size": 64, "layers": (1, 1, 1, 1), "width": 8, "head_width": 8, "patch_size": None}
    made = OpenClipEncoder(open_clip.CLIP(24, vision, dict(TEXT)), open_clip.SimpleTokenizer(context_length=16))
    assert made.visual_tokens(Image.new("RGB", (64, 64))).shape == (4, 24)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("./nowhere", {}, "folder './nowhere' has no encoder"),
        ("local-dir:/nowhere", {}, "folder '/nowhere' has no encoder"),
        ("ViT-B-32", {}, "needs the name of its weights"),
        ("ViT-B-32", {"pretrained": "no-such-tag"}, "cannot be loaded"),
        ("no-such-architecture", {"pretrained": "openai"}, "cannot be loaded"),
    ],
)
def test_an_encoder_that_is_not_there_is_a_sentence(source, options, said):
    with pytest.raises(ExpertError, match=said):
        load_encoder(source, **options)


def test_a_folder_without_weights_is_refused(encoder, tmp_path):
    save_clip(encoder.model, tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(ExpertError, match="cannot be loaded"):
        load_encoder(tmp_path)
