"""Captions, their one-word errors, and the compact token table."""

from collections import Counter
from random import Random

import numpy as np
import pytest
import torch

from careedit_tiny.models.clip import CONFIG, tokenizer
from careedit_tiny.recipes.clip.captions import caption_of, group_scene, named_objects, one_word_off, vocabulary
from careedit_tiny.recipes.clip.data import OTHER, UNLABELLED, CompactTokenizer, patch_labels
from careedit_tiny.recipes.clip.train import contrastive_loss, grounding_loss
from careedit_tiny.world.scene import COLOURS, SHAPES, Scene, Thing

SCENE = Scene("pink", things=(Thing("circle", "red", 0), Thing("star", "blue", 8, size="large")))


@pytest.fixture(scope="module")
def tokenize():
    return CompactTokenizer()


def test_a_whole_caption_names_everything():
    caption = str(caption_of(SCENE, Random(0), whole=True))
    assert caption == "a red circle at the top left and a blue star at the bottom right on a plain pink background"


@pytest.mark.parametrize("seed", range(40))
def test_a_wrong_caption_differs_and_is_false(seed):
    rng = Random(seed)
    scene = group_scene(rng)
    caption = caption_of(scene, rng)
    wrong = one_word_off(caption, scene, rng)
    differing = [m for m, n in zip(wrong.mentions, caption.mentions, strict=True) if m != n]
    assert len(differing) + (wrong.background != caption.background) + (wrong.backdrop != caption.backdrop) == 1
    groups = Counter(thing.name for thing in scene.things)
    for mention in differing:
        name = f"{mention.colour} {mention.shape}"
        cells = [thing.cell for thing in scene.things if thing.name == name]
        assert groups[name] != mention.count or (mention.cell is not None and mention.cell not in cells)


def test_objects_are_found_in_words():
    words = ["swap", "the", "red", "circle", "for", "two", "blue", "crosses", "and", "the", "star"]
    assert named_objects(words) == [(3, "circle", "red"), (7, "cross", "blue"), (10, "star", None)]


def test_every_patch_knows_its_object():
    shape, colour = patch_labels(SCENE).reshape(2, 8, 8)
    assert shape[1, 1] == SHAPES.index("circle")
    assert colour[1, 1] == list(COLOURS).index("red")
    assert shape[6, 6] == SHAPES.index("star")
    assert shape[0, 7] == OTHER
    assert set(np.unique(shape)) == {OTHER, SHAPES.index("circle"), SHAPES.index("star")}


def test_a_look_leaves_no_labels():
    assert set(np.unique(patch_labels(Scene("pink", things=SCENE.things, look="night")))) == {UNLABELLED}


def test_compact_ids_keep_the_order_of_the_full_ones(tokenize):
    text = "put a red circle at the top left"
    full = tokenizer()([text])[0]
    compact = tokenize([text]).ids[0]
    assert [tokenize.used[i - 1] for i in compact.tolist()] == full[: len(compact)].tolist()
    assert compact.argmax() == full.argmax()


def test_a_word_that_training_never_shows_is_row_zero(tokenize):
    texts = tokenize(["eliminate the red circle"])
    assert texts.ids[0, 1] == 0
    assert (texts.ids[0, 2 : texts.ends[0]] > 0).all()
    assert texts.named.tolist() == [[0, 4, SHAPES.index("circle"), 0]]


def test_the_vocabulary_holds_no_word_that_only_held_out_phrasings_have():
    assert {"remove", "circle", "lavender", "sketch"} <= set(vocabulary())
    assert not {"eliminate", "vanish", "substitute", "aim"} & set(vocabulary())


def test_a_long_text_ends_with_the_end_token(tokenize):
    texts = tokenize(["red " * 100])
    assert texts.ids.shape == (1, CONFIG["text_cfg"]["context_length"])
    assert texts.ids[0, texts.ends[0]] == tokenize.size - 1


def test_the_grounding_loss_falls_where_words_meet_their_patches():
    patches = torch.eye(4)
    labels = torch.tensor([[0, 1, OTHER, UNLABELLED], [0, 1, OTHER, UNLABELLED]])
    named = torch.tensor([[0, 0], [1, OTHER]])
    right = grounding_loss(torch.eye(4)[:2], named, patches, labels, torch.tensor(20.0))
    wrong = grounding_loss(torch.eye(4)[[1, 0]], named, patches, labels, torch.tensor(20.0))
    assert float(right) < 1e-3
    assert float(wrong) > 10
    absent = grounding_loss(torch.eye(4)[:1], torch.tensor([[7, 7]]), patches, labels, torch.tensor(20.0))
    assert float(absent) == 0


def test_the_contrastive_loss_counts_decoys():
    images = torch.eye(2, 4)
    without = contrastive_loss(images, torch.eye(2, 4), torch.tensor(10.0))
    decoys = contrastive_loss(images, torch.cat([torch.eye(2, 4), torch.eye(2, 4)]), torch.tensor(10.0))
    assert float(decoys) > float(without) + 0.3
