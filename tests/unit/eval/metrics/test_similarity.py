"""CLIP-I, CLIP-T, CLIP direction and DINO, against MagicBrush's own formulas computed a second time."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from scipy.spatial import distance
from torchvision import transforms
from transformers import ViTModel

from careedit.encoders import load_encoder
from careedit.errors import CareEditError, InputError
from careedit_eval.errors import MetricError
from careedit_eval.metrics import load_metric
from careedit_eval.metrics.backbones import BATCH, clip_backbone, vit_backbone
from careedit_eval.metrics.similarity import CUT, UNCHANGED, ClipDirection, ImageSimilarity
from careedit_eval.metrics.views import View

NAMES = ("clip_i", "clip_t", "clip_direction", "dino")
TEXTS = {"source_caption": "a green picture", "target_caption": "a red circle on a green picture"}
LONG = "a red circle on a green picture and " * 30


@pytest.fixture(scope="module")
def metric(clip_folder, dino_folder):
    def load(name, **options):
        if name == "dino":  # MagicBrush's way with a model that is quick
            return ImageSimilarity(
                "dino", "magicbrush-v1", vit_backbone(str(dino_folder), True, "cpu"), View(**options)
            )
        return load_metric(name, protocol="own", model=str(clip_folder), **options)

    return load


@pytest.fixture(scope="module")
def items(make_item, draw_picture):
    return [
        make_item(
            draw_picture((90, 64), 1), draw_picture((80, 60), i), target=draw_picture((120, 70), i + 7), texts=TEXTS
        )
        for i in range(BATCH + 3)
    ]


def value(metric, item):
    (found,) = metric.score([item])
    assert found.error is None, found.error
    return found.values[metric.spec.name]


def openai_pixels(image):
    """OpenAI's clip/clip.py `_transform(224)`."""
    steps = [
        transforms.Resize(224, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ]
    return transforms.Compose(steps)(image.convert("RGB"))[None]


def dino_pixels(image):
    """MagicBrush's evaluation/image_eval.py."""
    steps = [
        transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    return transforms.Compose(steps)(image.convert("RGB"))[None]


@torch.inference_mode()
def by_hand(name, item, clip_folder, dino_folder):
    """Batches of one, un-normalised features, scipy's cosine: as the published script does it."""
    edited, source, target = item.edited, item.pictures.source, item.pictures.target
    if name == "dino":
        model = ViTModel.from_pretrained(dino_folder, add_pooling_layer=False).eval()
        one, other = (model(pixel_values=dino_pixels(p)).last_hidden_state[0, 0].numpy() for p in (edited, target))
        return 1 - distance.cosine(one, other)
    model = load_encoder(clip_folder).model
    look = {id(p): model.encode_image(openai_pixels(p))[0].numpy() for p in (edited, source, target)}
    words = open_clip.get_tokenizer("ViT-B-32")([TEXTS["source_caption"], TEXTS["target_caption"]])
    before, after = model.encode_text(words).numpy()
    if name == "clip_i":
        return 1 - distance.cosine(look[id(edited)], look[id(target)])
    if name == "clip_t":
        return 1 - distance.cosine(look[id(edited)], after)
    unit = [vector / np.linalg.norm(vector) for vector in (look[id(edited)], look[id(source)], after, before)]
    return 1 - distance.cosine(unit[0] - unit[1], unit[2] - unit[3])


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_the_published_formula_gives(metric, items, name, clip_folder, dino_folder):
    for item in items[:3]:
        assert value(metric(name), item) == pytest.approx(by_hand(name, item, clip_folder, dino_folder), abs=2e-6)


@pytest.mark.parametrize("name", ["clip_i", "dino"])
def test_an_identical_pair_is_one_and_inverted_colours_are_less(metric, make_item, draw_picture, inverted, name):
    picture = draw_picture((100, 80))
    same = value(metric(name), make_item(picture, picture, target=picture))
    other = value(metric(name), make_item(picture, inverted(picture), target=picture))
    assert same == pytest.approx(1, abs=1e-12)
    assert other < 0.99


def test_the_wrong_caption_scores_below_the_right_one(metric, items):
    """Of a random model the caption that fits is, by construction, the one that points where the picture does."""
    backbone = metric("clip_t").backbone
    (picture,) = backbone.images([items[0].edited])
    captions = ["a red circle", "three blue dogs", "snow at night", "an old car"]
    cosines = dict(zip(captions, (float(picture @ v) for v in backbone.texts(captions)), strict=True))
    right, wrong = max(cosines, key=cosines.get), min(cosines, key=cosines.get)
    scores = [
        value(metric("clip_t"), type(items[0])(s, items[0].edit, items[0]._edited))
        for s in (items[0].sample.model_copy(update={"texts": {"target_caption": text}}) for text in (right, wrong))
    ]
    assert scores[0] > scores[1]


@pytest.mark.parametrize("name", NAMES)
def test_alone_in_any_batch_and_again_it_is_the_same_number_to_the_last_bit(metric, items, name):
    measure = metric(name)
    together = measure.score(items)
    embedder = measure._embed if hasattr(measure, "_embed") else measure.backbone.images
    for order in (list(reversed(items)), items[5:6], items[2:9]):
        embedder._known.clear()
        found = dict(zip(map(id, order), measure.score(order), strict=True))
        assert all(found[id(item)] == one for item, one in zip(items, together, strict=True) if id(item) in found)


def test_a_caption_that_is_too_long_keeps_its_end_token_and_is_flagged(metric, items, clip_folder):
    backbone = metric("clip_t").backbone
    ids = load_encoder(clip_folder).tokenizer([LONG])
    assert ids.shape == (1, 77)
    assert ids[0, -1] == 49407
    assert backbone.is_cut(LONG)
    assert not backbone.is_cut(TEXTS["target_caption"])
    cut = items[0].sample.model_copy(update={"texts": {**TEXTS, "target_caption": LONG}})
    item = type(items[0])(cut, items[0].edit, items[0]._edited)
    assert metric("clip_t").score([item])[0].notes == (CUT,)
    assert metric("clip_t").score([items[0]])[0].notes == ()


def test_a_text_of_exactly_the_context_is_not_cut(metric):
    backbone = metric("clip_t").backbone
    assert [backbone.is_cut("red " * n) for n in (74, 75, 76)] == [False, False, True]


def test_a_damaged_picture_is_one_error_and_the_others_are_measured(metric, items, make_item, draw_picture):
    broken = make_item(draw_picture(), b"not a picture", target=draw_picture(), texts=TEXTS)
    for name in NAMES:
        first, second, third = metric(name).score([items[0], broken, items[1]])
        assert (first.error, third.error) == (None, None)
        assert second.values == {}
        assert "picture" in second.error


def test_an_unchanged_picture_moved_in_no_direction_and_says_so(metric, make_item, draw_picture):
    picture = draw_picture()
    (found,) = metric("clip_direction").score([make_item(picture, picture, texts=TEXTS)])
    assert (found.values, found.notes) == ({"clip_direction": 0.0}, (UNCHANGED,))


def test_equal_captions_name_no_direction_and_are_nobodys_error(metric, make_item, draw_picture):
    same = {"source_caption": "a circle", "target_caption": "a circle"}
    (found,) = metric("clip_direction").score([make_item(draw_picture(), draw_picture(seed=1), texts=same)])
    assert found.error is None and "no direction" in found.not_applicable


def test_against_the_source_it_is_another_metric_of_another_name(metric, items):
    for name in ("clip_i", "dino"):
        target, source = metric(name), metric(name, against="source")
        assert (target.spec.name, source.spec.name) == (name, f"{name}_source")
        assert target.spec.key != source.spec.key
        assert (target.needs, source.needs) == ({"target"}, frozenset())
        assert value(target, items[0]) != value(source, items[0])


def test_an_identity_names_backbone_weights_and_preprocessing(metric, clip_folder, vits16_folder):
    clip, dino = metric("clip_i").spec, load_metric("dino", model=str(vits16_folder)).spec
    assert (clip.protocol, clip.name, clip.reference) == ("own", "clip_i", "target")
    assert (dino.protocol, dino.backbone) == ("magicbrush-v1", "transformers dino-vits16")
    assert "256" in dino.preprocessing and "ImageNet" in dino.preprocessing
    assert "shorter side to 224, centre crop 224, bicubic" in clip.preprocessing
    assert clip.revision == clip_backbone(str(clip_folder), None, "cpu").revision != dino.revision
    assert len(clip.revision) == 64


def test_under_magicbrushs_name_stands_no_other_model(clip_folder, tmp_path):
    with pytest.raises(MetricError, match="cannot be loaded"):
        load_metric("clip_i", model=str(clip_folder / "open_clip_model.safetensors"))
    from careedit_tiny.models.dino import build_dino, save_dino

    save_dino(build_dino(0), tmp_path / "dino")
    with pytest.raises(MetricError, match="not a ViT-S/16"):
        load_metric("dino", model=str(tmp_path / "dino"))
    assert load_metric("dino", protocol="own", model=str(tmp_path / "dino")).spec.protocol == "own"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("clip_i", {"protocol": "own"}),
        ("dino", {"protocol": "own", "model": "/nowhere"}),
        ("clip_t", {"against": "future"}),
        ("clip", {}),
    ],
)
def test_a_metric_that_cannot_be_had_is_a_sentence(name, options):
    with pytest.raises(CareEditError, match=r"\.$") as caught:
        load_metric(name, **options)
    assert isinstance(caught.value, InputError | MetricError)


def test_a_direction_needs_both_captions(metric):
    measure: ClipDirection = metric("clip_direction", before="source_caption_long")
    assert measure.needs == {"text:source_caption_long", "text:target_caption"}
    assert measure.spec.key != metric("clip_direction").spec.key


def test_pictures_of_any_mode_are_seen_as_rgb(metric, make_item, draw_picture):
    picture = draw_picture((64, 64))
    palette = picture.quantize(16)
    found = [
        value(metric("clip_i"), make_item(picture, shown, target=palette.convert("RGB")))
        for shown in (palette, palette.convert("RGBA"), palette.convert("RGB"))
    ]
    assert found == pytest.approx([1, 1, 1], abs=1e-12)
    assert isinstance(palette, Image.Image)
