"""Training items: what they show, and what they must never show."""

from random import Random

import numpy as np
import pytest

from careedit.editing.families.fill import DIPTYCH, TRIPTYCH, in_context_prompt
from careedit.finetune.pool import CLIP_LENGTH
from careedit_tiny.models.family import MAX_SEQUENCE_LENGTH, PANEL, build_clip_tokenizer, build_t5_tokenizer
from careedit_tiny.recipes.base.items import EXPERT_KINDS, UNKNOWN, corpus, edit_item, fill_item, loosely
from careedit_tiny.world.operations import EXPERT_OF, OPERATIONS
from careedit_tiny.world.phrases import PHRASES, phrasings
from careedit_tiny.world.samples import draw_sample


@pytest.mark.parametrize("expert", EXPERT_KINDS)
def test_an_item_is_a_function_of_its_index(expert):
    first, again, other = (edit_item(expert, index) for index in (5, 5, 6))
    assert first.canvas.tobytes() == again.canvas.tobytes()
    assert first.prompt == again.prompt
    assert (first.canvas.tobytes(), first.prompt) != (other.canvas.tobytes(), other.prompt)


@pytest.mark.parametrize("expert", EXPERT_KINDS)
def test_an_edit_item_has_the_panels_and_the_frame_of_its_kind(expert):
    item = edit_item(expert, 3)
    panels, frame = (3, TRIPTYCH) if expert == "reference" else (2, DIPTYCH)
    assert item.canvas.size == item.mask.size == (panels * PANEL, PANEL)
    assert item.prompt.startswith(frame)
    marked = np.asarray(item.mask) > 0
    assert marked.any()
    assert not marked[:, :-PANEL].any()


@pytest.mark.parametrize("index", range(40))
def test_a_fill_item_differs_from_its_canvas_only_where_it_is_free(index):
    item = fill_item(index)
    assert item.canvas.size == (2 * PANEL, PANEL)
    assert item.prompt.startswith(DIPTYCH)
    assert (np.asarray(item.mask) > 0).any()


def test_what_is_said_loosely_has_the_slots_in_their_order_and_fewer_of_the_words_around_them():
    missing = []
    for index in range(200):
        sample, rng = draw_sample("replace.thing", index), Random(index)
        words, whole = loosely(sample, rng).split(), sample.instruction.split()
        rest = iter(whole)
        assert all(word == UNKNOWN or word in rest for word in words)
        missing.append(len(whole) - len(words))
        slots = [word for slot in ("x", "y") for word in sample.slots[slot].split()]
        assert len([word for word in words if word in slots or word == UNKNOWN]) >= len(slots)
    assert min(missing) == 0 < max(missing)
    sample = draw_sample("replace.thing", 0)
    assert all(
        len(loosely(sample, Random(seed), dropped=0.0).split()) == len(sample.instruction.split()) for seed in range(50)
    )


def test_the_experts_share_out_every_operation():
    trained = {operation: expert for expert, operations in EXPERT_KINDS.items() for operation in operations}
    assert trained == dict(EXPERT_OF)
    assert set(trained) == set(OPERATIONS)


def test_no_held_out_phrasing_is_in_the_corpus():
    texts = corpus()
    held_out = {phrase for operation in PHRASES for phrase in phrasings(operation, "held_out")}
    plain = {phrase for phrase in held_out if "{" not in phrase}
    assert plain
    assert not plain & set(texts)


def test_every_prompt_of_known_words_fits_the_text_encoders():
    texts = corpus()
    t5, clip = build_t5_tokenizer(texts), build_clip_tokenizer(texts)
    prompts = [in_context_prompt(text, references=references) for text in set(texts) for references in (0, 1)]
    assert max(len(t5(prompt).input_ids) for prompt in prompts) <= MAX_SEQUENCE_LENGTH
    assert max(len(clip(prompt).input_ids) for prompt in prompts) <= CLIP_LENGTH


def test_every_tokenizer_of_a_corpus_gives_the_same_ids():
    texts = ["remove the red circle, please", "turn it to the left", "a dotted blue star at the top"]
    first, *others = (build_clip_tokenizer(texts).get_vocab() for _ in range(4))
    assert all(other == first for other in others)
