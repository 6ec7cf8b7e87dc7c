"""Instructions in other words: what they ask for stays, and nothing held out is ever said."""

from random import Random

import pytest

from careedit_tiny.recipes.router.words import in_other_words, slots_of, unheard_words
from careedit_tiny.world.phrases import PHRASES, phrasings
from careedit_tiny.world.samples import draw_sample


@pytest.mark.parametrize("operation", PHRASES)
def test_every_seen_phrasing_is_taken_apart_and_said_otherwise(operation):
    sample = draw_sample(operation, 7)
    slots = slots_of(sample.instruction, operation)
    assert slots is not None
    said = {in_other_words(sample.instruction, operation, Random(seed)) for seed in range(30)}
    assert len(said) > 10
    assert all(value in text for text in said for _, value in slots)


def test_slots_with_words_of_their_own_are_kept_whole():
    slots = dict(slots_of("put the red circle to the left of the blue star", "relation.beside") or ())
    assert slots == {"x": "the red circle", "r": "to the left of", "z": "the blue star"}


def test_what_is_no_phrasing_of_the_operation_has_no_slots():
    assert slots_of("abracadabra", "remove.thing") is None


def test_an_instruction_from_elsewhere_keeps_most_of_its_words():
    text = "put the company logo on the front of every van in the picture"
    said = in_other_words(text, None, Random(1))
    assert len(said.split()) == len(text.split())
    assert sum(a == b for a, b in zip(said.split(), text.split(), strict=True)) >= 10


def test_no_unheard_word_occurs_in_any_phrasing():
    words = {
        word.lower()
        for operation in PHRASES
        for pool in ("seen", "held_out")
        for phrase in phrasings(operation, pool)
        for word in phrase.split()
    }
    assert len(unheard_words()) == 4000
    assert not words & set(unheard_words())
