"""The samples of the claims: exact results that the oracle accepts, and what must differ or be equal."""

from __future__ import annotations

import pytest

from careedit_tiny.evaluation.claims.samples import (
    BRANDS,
    RIVALS,
    ambiguous_samples,
    brand_sample,
    in_other_phrasings,
    look_samples,
    untaught,
)
from careedit_tiny.oracle.verdict import judge
from careedit_tiny.world.looks import UNTAUGHT
from careedit_tiny.world.phrases import LOOK_NAMES
from careedit_tiny.world.samples import draw_sample, sample_from_dict
from careedit_tiny.world.scene import LOOKS


def test_no_model_of_the_family_is_taught_the_untaught_looks() -> None:
    assert not set(UNTAUGHT) & (set(LOOKS) | set(LOOK_NAMES))


@pytest.mark.parametrize("look", UNTAUGHT)
def test_the_oracle_accepts_an_untaught_look_and_nothing_else(look: str) -> None:
    words, shown = look_samples(0, look)
    assert (words.source, words.target) == (shown.source, shown.target)
    assert words.reference is None and shown.reference is not None and shown.reference.look == look
    assert judge(words, words.target_image()).compliant
    assert not judge(words, words.source_image()).compliant
    for other in set(UNTAUGHT) - {look}:
        assert not judge(words, look_samples(0, other)[0].target_image()).followed


def test_untaught_looks_take_turns() -> None:
    assert {untaught(index) for index in range(len(UNTAUGHT))} == set(UNTAUGHT)


def test_rival_brands_differ_in_nothing_but_name_and_look() -> None:
    for split in ("train", "test"):
        one, other = (brand_sample(brand, 5, split) for brand in RIVALS)
        assert one.source == other.source
        assert one.target.look != other.target.look
        assert set(one.instruction.split()) & set(BRANDS) == {RIVALS[0]}
        assert one.id != other.id
        assert sample_from_dict(one.to_dict()) == one
    assert not brand_sample("navy", 5, "train").held_out_phrasing


def test_other_phrasings_change_the_words_alone() -> None:
    drawn = draw_sample("attribute", 3, "test")
    said = in_other_phrasings(drawn, 2)
    assert len({one.instruction for one in said}) == 4
    assert [one.held_out_phrasing for one in said] == [False, False, True, True]
    assert {(one.id, one.source, one.target) for one in said} == {(drawn.id, drawn.source, drawn.target)}


def test_either_object_of_an_ambiguous_removal_may_go() -> None:
    for index in range(2):
        one, other = ambiguous_samples(index)
        assert (one.source, one.instruction, one.id) == (other.source, other.instruction, other.id)
        assert judge(one, one.target_image()).compliant and judge(other, other.target_image()).compliant
        assert not judge(one, other.target_image()).compliant
        named = [thing.shape for thing in one.source.things if thing.shape in one.instruction.split()]
        assert len(named) == 2
