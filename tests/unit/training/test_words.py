"""What the words of an instruction mean, and a T5 that learns it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from careedit.errors import CareEditError
from careedit_tiny.models.family import build_pipeline
from careedit_tiny.recipes.base import words as recipe
from careedit_tiny.recipes.base.labels import NONE, UNKNOWN
from careedit_tiny.recipes.base.words import (
    WORD_ATTRIBUTES,
    load_words,
    look_around,
    make_words,
    word_labels,
    word_loss,
    word_pool,
)
from careedit_tiny.world.samples import draw_sample


def meaning(operation: str, index: int = 0) -> tuple[str, list[dict[str, str]]]:
    """The instruction of a training sample, and what is said of each of its words."""
    sample = draw_sample(operation, index)
    columns = word_labels(sample).T
    names = tuple(WORD_ATTRIBUTES)
    said = [{name: WORD_ATTRIBUTES[name][value] for name, value in zip(names, c, strict=True)} for c in columns]
    return sample.instruction, said


@pytest.mark.parametrize("operation", [name for names in recipe.EXPERT_KINDS.values() for name in dict.fromkeys(names)])
def test_every_word_has_its_labels(operation):
    for index in range(10):
        instruction, said = meaning(operation, index)
        assert len(said) == len(instruction.split())
        assert {word["operation"] for word in said} == {operation}


def test_the_two_objects_of_a_replacement_are_told_apart():
    sample = draw_sample("replace.thing", 0)
    _, said = meaning("replace.thing", 0)
    for slot in ("x", "y"):
        words = [word for word in said if word["slot"] == slot]
        named = sample.slots[slot].split()
        assert len(words) == len(named)
        assert {word["shape"] for word in words} == {named[-1]}
        assert {word["colour"] for word in words} <= {*named, NONE}


def test_a_group_is_of_the_shape_that_its_plural_names():
    sample = draw_sample("counting.set", 0)
    shape = next(thing.shape for thing in sample.source.things if thing.name.split()[1] in sample.slots["xs"])
    _, said = meaning("counting.set", 0)
    assert {word["shape"] for word in said if word["slot"] == "xs"} == {shape}
    assert [word["value"] for word in said if word["slot"] == "n"] == [sample.slots["n"]]


@pytest.fixture(scope="module")
def small(corpus_pipeline, tmp_path_factory):
    """A pool of four instructions per operation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "SENTENCES", 4)
        return dict(word_pool(corpus_pipeline.tokenizer_2, tmp_path_factory.mktemp("pools")))


def test_the_pool_labels_words_and_nothing_else(small):
    labelled = small["labels"][:, 0] != UNKNOWN
    special = (small["t5"] < 2) | (torch.arange(small["t5"].shape[1]) == 0)  # padding, end; the frame
    assert labelled.any(dim=1).all()
    assert not (labelled & special).any()
    assert (labelled | special).all()


def test_an_unknown_word_is_a_space_and_an_unknown_token_which_both_have_its_label(small):
    unknown = (small["t5"] == 2).nonzero()
    assert len(unknown)
    for row, place in unknown.tolist():
        assert small["t5"][row, place - 1] == 3
        assert small["labels"][row, :, place].tolist() == small["labels"][row, :, place - 1].tolist()


def test_training_makes_t5_know_the_words_better_and_is_kept(small, corpus_pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "word_pool", lambda *_: small)
    report = make_words(tmp_path, replace(recipe.DEFAULT, steps=30, warmup=5))
    encoder, probe = load_words(tmp_path)
    generator = torch.Generator().manual_seed(0)
    known = word_loss(encoder, probe, small, generator).item()
    unknown = word_loss(corpus_pipeline.text_encoder_2, probe, small, generator).item()
    assert known < 0.7 * unknown
    assert not any(parameter.requires_grad for parameter in probe.parameters())
    assert report.curve[-1][0] == 30


def test_a_folder_without_words_says_what_to_do(tmp_path):
    with pytest.raises(CareEditError, match="run 'careedit train words' first"):
        load_words(tmp_path)


def test_each_head_starts_with_the_words_that_it_is_meant_for():
    encoder = build_pipeline(["one two three four five six"]).text_encoder_2
    look_around(encoder)
    bias = encoder.encoder.block[0].layer[0].SelfAttention.compute_bias(6, 6)[0]  # [heads, query, key]
    favourites = bias[:, 3].argmax(dim=-1).tolist()
    assert favourites[:2] == [2, 4]
    before, after = bias[2, 3], bias[3, 3]
    assert before[2] > before[1] > before[0] > before[4]
    assert after[4] > after[5] > after[2]
