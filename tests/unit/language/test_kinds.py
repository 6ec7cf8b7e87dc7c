"""Instructions as normalised words, and the edit kinds that the words speak for."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from careedit.language import COMPETENCES, kinds_of, normalise, words_of
from careedit.language.grammar import RULES
from careedit.language.kinds import PAUSE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Remove the DOG!", "remove the dog"),
        ("Don’t touch it; it's mine.", "do not touch it , it's mine"),
        ("I can't see, won't look", "i can not see , will not look"),
        ("Make the colour grey", "make the color gray"),
        ("  a pop-art\n poster ", "a pop art , poster"),
        ("add 1,000 stars at 2.5x", "add 1000 stars at 25x"),
        ("ｒｅｍｏｖｅ the café", "remove the café"),
        ("把狗去掉。", "把狗去掉"),
        ("удали собаку", "удали собаку"),
        ("?!...", ""),
        ("\U0001f436\U0001f525", ""),
    ],
)
def test_an_instruction_is_normalised(text, expected):
    assert normalise(text) == expected


def test_words_are_without_pauses():
    assert words_of("Remove it, please.") == ("remove", "it", "please")


@given(st.text(max_size=200))
def test_normalising_twice_changes_nothing_more(text):
    once = normalise(text)

    assert normalise(once) == once
    assert not once.startswith(PAUSE) and "  " not in once


@pytest.mark.parametrize(
    "clause", ["but keep the rest", "leaving everything else untouched", "don't change the others"]
)
def test_keeping_the_rest_is_not_a_matter_of_identity(clause):
    assert "identity" not in kinds_of(f"make it a pencil sketch {clause}")


def test_protected_things_speak_for_no_kind():
    assert kinds_of("keep the background, do not remove the dog") == {}


def test_every_kind_has_a_rule_or_is_derived():
    assert {rule.kind for rule in RULES} | {"identity"} == set(COMPETENCES)


@pytest.mark.parametrize(
    "unit", ["make the dog ", "everything but ", "keep ", "take a b ", "not change , ", "the a stay ", "x"]
)
def test_no_instruction_makes_the_patterns_slow(unit):
    start = time.perf_counter()
    kinds_of((unit * 2000)[:2000])

    assert time.perf_counter() - start < 2
