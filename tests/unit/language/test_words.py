"""One spelling for what people type in several ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from careedit.language.kinds import PAUSE, normalise, words_of


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
