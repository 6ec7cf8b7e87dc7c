"""CLIP and DINO on one side of the mask, identity, VQAScore, and edits that hold back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from careedit.encoders import load_encoder
from careedit.errors import InputError
from careedit.scoring.vlm import TransformersAsker
from careedit_eval.errors import MetricError
from careedit_eval.metrics import backbones, load_metric
from careedit_eval.metrics.backbones import vit_backbone
from careedit_eval.metrics.options import VqaScoreOptions
from careedit_eval.metrics.vqascore import VqaScore

TEXTS = {"target_caption": "a red circle on a green picture"}


def value(metric, item, name=None):
    (found,) = metric.score([item])
    assert found.error is None, found.error
    return found.values[name or metric.spec.name]


def black(picture, keep):
    return Image.fromarray(np.asarray(picture) * keep[..., None])


def cosine(one, other):
    return float(torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0))


@pytest.fixture
def item(make_item, draw_picture, draw_mask):
    source = draw_picture((64, 64), 3)
    return make_item(source, draw_picture((64, 64), 5), mask=draw_mask(), texts=TEXTS, kind="Face")


@pytest.mark.parametrize("area", ["inside", "outside"])
def test_clip_and_dino_see_one_side_of_the_mask(item, clip_folder, dino_folder, area):
    inside = np.asarray(item.pictures.mask) > 0
    keep = inside if area == "inside" else ~inside
    edited, source = black(item.edited, keep), black(item.pictures.source, keep)
    clip = load_encoder(clip_folder)
    own = {"protocol": "own", "model": str(clip_folder), "area": area}
    by_hand = cosine(*clip.image_embeddings([edited, source]))
    assert value(load_metric("clip_i", against="source", **own), item) == pytest.approx(by_hand, abs=1e-6)
    by_hand = cosine(clip.image_embedding(edited), clip.text_embedding(TEXTS["target_caption"]))
    metric = load_metric("clip_t", **own)
    assert value(metric, item) == pytest.approx(by_hand, abs=1e-6)
    assert (metric.spec.name, metric.needs) == (f"clip_t_{area}", {"mask", "text:target_caption"})


def test_an_option_of_another_metric_is_refused():
    for name, option in (("clip_t", {"against": "source"}), ("dino", {"pretrained": "x"}), ("clip_i", {"text": "x"})):
        with pytest.raises(InputError, match=next(iter(option))):
            load_metric(name, protocol="tiny-v1", **option)


def test_identity_compares_the_masks_box_of_edits_that_keep_a_subject(make_item, item, dino_folder, monkeypatch):
    monkeypatch.setattr(
        "careedit_eval.metrics.identity.dino_backbone", lambda _: vit_backbone(str(dino_folder), True, "cpu")
    )
    metric = load_metric("identity", protocol="own", model="x", margin=0, kinds=["Face"])
    box = item.pictures.mask.getbbox()
    embed = vit_backbone(str(dino_folder), True, "cpu").images
    one, other = embed([item.edited.crop(box), item.pictures.source.crop(box)])
    assert value(metric, item) == pytest.approx(float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))
    unchanged = make_item(item.pictures.source, item.pictures.source, mask=item.pictures.mask, kind="Face")
    assert value(metric, unchanged) == pytest.approx(1)
    (found,) = metric.score([make_item(item.edited, item.edited, mask=item.pictures.mask, kind="Remove")])
    assert "'Remove' need not keep a subject" in found.not_applicable


def test_a_vit_has_one_identity_in_every_process(tmp_path):
    """Most checkpoints lack the pooler, so it would be drawn anew at every load."""
    from careedit_tiny.models.dino import build_dino, save_dino

    save_dino(build_dino(0), tmp_path / "dino")
    keys = set()
    for _ in range(2):
        backbones.vit_backbone.cache_clear()
        keys.add(load_metric("dino", protocol="own", model=str(tmp_path / "dino")).spec.key)
    assert len(keys) == 1


def test_what_holds_back_is_counted_apart_for_instructions_that_apply_and_others(make_item, draw_picture):
    source, other = draw_picture(), draw_picture(seed=2)
    traces = [json.dumps({"routing": {"feasible": share, "weights": {}}}) for share in (0.2, 0.9)]
    still, moved = make_item(source, source), make_item(source, other)
    hopeless = {"extras": {"feasible": False}}
    metric = load_metric("no_op")
    assert [value(metric, one, "no_op_feasible") for one in (still, moved)] == [1, 0]
    (found,) = metric.score([make_item(source, source, **hopeless)])
    assert found.values == {"no_op_infeasible": 1.0} and "no_op_feasible" in found.absent
    near = source.point(lambda one: min(255, one + 1))
    near.putpixel((3, 3), (255, 255, 255))
    options = ({}, {"tolerance": 0.02}, {"tolerance": 0.02, "share": 0.001})
    found = [value(load_metric("no_op", **one), make_item(source, near), "no_op_feasible") for one in options]
    assert found == [0, 0, 1]
    metric = load_metric("refusal")
    refused, taken = (make_item(source, other, edit={"trace": trace}, **hopeless) for trace in traces)
    assert [value(metric, one, "refusal_infeasible") for one in (refused, taken)] == [1, 0]
    assert "did not say" in metric.score([moved])[0].error


def test_vqascore_is_the_probability_of_the_answers_token_among_all_tokens(item):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from careedit_tiny.plugin import judge_folder

    processor = AutoProcessor.from_pretrained(judge_folder())
    model = AutoModelForImageTextToText.from_pretrained(judge_folder(), dtype=torch.float32).eval()
    question = f'Does this figure show "{TEXTS["target_caption"]}"? Please answer yes or no.'
    message = {"role": "user", "content": [{"type": "image", "image": item.edited}, {"type": "text", "text": question}]}
    inputs = processor.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    (token,) = processor.tokenizer.encode("yes", add_special_tokens=False)
    asker = TransformersAsker(model, processor, name="tiny", revision="1")

    def metric(**options):
        return VqaScore(asker, VqaScoreOptions(model="tiny", **({"answer": "yes"} | options)))

    assert value(metric(), item) == pytest.approx(float(logits.softmax(0)[token]), rel=1e-4)
    assert metric().needs == {"text:target_caption"}
    assert metric(question='Is "{text}" shown?').spec.key != metric().spec.key
    with pytest.raises(MetricError, match=r"as [2-9] tokens"):
        metric(answer="Certainly so")
    with pytest.raises(InputError, match="must have"):
        load_metric("vqascore", model="nowhere", question="Is it right?")
