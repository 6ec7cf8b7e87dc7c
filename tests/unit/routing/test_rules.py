"""The rules router: conditions, experts of a set, mixtures, and what it says of itself."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from careedit.routing import Router, RoutingFeatures, RulesRouter

BOX = (0.1, 0.1, 0.4, 0.4)
PICTURE = Image.new("RGB", (8, 8))


@pytest.fixture(scope="module")
def router(experts):
    return RulesRouter(experts)


def asked(text, *, masked=False, reference=False, area=0.09):
    references = (PICTURE,) if reference else ()
    return RoutingFeatures(text, references=references, mask_area=area * masked, mask_bbox=BOX if masked else None)


def test_it_is_a_router(router):
    assert isinstance(router, Router)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Make the sofa's color a warm red", "'make … red' and 'color': the compose expert."),
        ("Erase the dog", "'erase': the erase expert."),
        ("make it look like a sketch", "'make … it', 'look like' and 'sketch': the style expert."),
        ("turn it into a mosaic but keep the logo", "'turn … it', 'mosaic' and 'keep': the identity expert."),
        ("change the background to a beach", "'change … to … beach' and 'background': the style expert."),
        ("replace the apple with an orange", "'replace': the compose expert."),
        ("take the cup off", "'take … off': the erase expert."),
    ],
)
def test_the_reason_names_the_words_that_decided(router, text, said):
    assert router.route(asked(text), top_k=1).reason == said


def test_a_mask_is_named_where_an_expert_is_for_masks(make_expert):
    router = RulesRouter(
        [make_expert("erase", "erase", ("remove", "mask")), make_expert("compose", "compose", ("add",))]
    )
    decision = router.route(asked("erase this", masked=True), top_k=1)

    assert decision.reason == "'erase' and a mask: the erase expert."


@pytest.mark.parametrize("text", ["a cat", "ein Hund", "一只猫", "?!"])
def test_a_mask_without_a_known_word_is_filled(router, text):
    decision = router.route(asked(text, masked=True), top_k=1)

    assert decision.weights == {"compose": 1.0}
    assert decision.reason == "a mask: the compose expert."


def test_a_mask_over_the_whole_picture_says_nothing(router):
    assert router.route(asked("a cat", masked=True, area=1.0), top_k=1).weights == {"base": 1.0}


@pytest.mark.parametrize("text", ["make it look like this", "remove the dog", "ajoute ceci", "", "…"])
def test_a_reference_picture_goes_to_the_reference_expert(router, text):
    decision = router.route(asked(text, reference=True), top_k=1)

    assert decision.weights == {"reference": 1.0}
    assert "a reference picture: the reference expert." in decision.reason


def test_the_word_reference_without_a_picture_adds_no_reference(router):
    assert "reference" not in router.route(asked("make it look like the reference"), top_k=5).weights


@pytest.mark.parametrize("text", ["ajoute un chien", "把狗去掉", "удали собаку", "犬を消して", "beautiful", "?!"])
def test_what_no_rule_knows_falls_back_to_the_base(router, text):
    decision = router.route(asked(text), top_k=3)

    assert decision.weights == {"base": 1.0}
    assert decision.reason.startswith("No rule knows a word")
    assert decision.entropy == pytest.approx(math.log(6))


def test_a_kind_that_no_expert_is_for_falls_back_to_the_base(make_expert):
    decision = RulesRouter([make_expert("style", "style")]).route(asked("remove the dog"), top_k=1)

    assert decision.weights == {"base": 1.0}
    assert decision.reason == "'remove': no expert of this set is for that, so the base alone."


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("make it a sketch but keep the logo", False, "style"),
        ("remove the dog", True, "erase"),
        ("make it a mosaic", True, "style"),
    ],
)
def test_a_set_without_identity_or_reference_expert_uses_the_next_best(make_expert, text, reference, expected):
    router = RulesRouter([make_expert("erase", "erase"), make_expert("style", "style")])

    assert router.route(asked(text, reference=reference), top_k=1).weights == {expected: 1.0}


def test_a_set_without_experts_uses_the_base():
    decision = RulesRouter([]).route(asked("remove the dog", masked=True, reference=True), top_k=2)

    assert decision.weights == {"base": 1.0}
    assert decision.probabilities == {"base": 1.0}


def test_handles_name_the_kinds_of_an_expert(make_expert):
    counter = make_expert("counter", "numbers", ("counting",))
    router = RulesRouter([make_expert("compose", "compose"), counter])

    assert router.route(asked("exactly three apples"), top_k=1).weights == {"counter": 1.0}
    assert router.route(asked("add an apple to the table"), top_k=1).weights == {"compose": 1.0}


def test_a_competence_of_ones_own_is_a_keyword(make_expert):
    logo = make_expert("logo-v2", "logo", ("brand_mark",))
    router = RulesRouter([make_expert("style", "style"), logo])

    for text in ("all logos in gold", "our brand mark, polished"):
        decision = router.route(asked(text), top_k=1)
        assert decision.weights == {"logo-v2": 1.0}
    assert decision.reason == "'brand mark': the logo-v2 expert."
    assert router.route(asked("a catalogostic sight"), top_k=1).weights == {"base": 1.0}


def test_a_mask_alone_goes_to_any_expert_for_masks(make_expert):
    router = RulesRouter([make_expert("a", "filling", ("mask",)), make_expert("b", "patching", ("masked",))])
    decision = router.route(asked("ein Hund", masked=True), top_k=2)

    assert decision.weights == {"a": 0.5, "b": 0.5}
    assert decision.reason == "a mask: the a expert, with b for a mask."


def test_a_mask_gives_nothing_to_an_expert_that_no_word_speaks_for(make_expert):
    router = RulesRouter([make_expert("erase", "erase", ("remove", "mask")), make_expert("fill", "compose", ("mask",))])

    assert router.route(asked("erase it", masked=True), top_k=2).weights == {"erase": 1.0}


def test_an_expert_of_little_weight_is_left_out_of_a_mixture(router):
    decision = router.route(asked("remove the dog from the two cars"), top_k=5)

    assert decision.weights == {"erase": 1.0}
    assert decision.probabilities["compose"] > decision.probabilities["style"]


def test_a_mixture_holds_only_experts_that_something_speaks_for(router):
    decision = router.route(asked("add a hat, then erase the dog"), top_k=5)

    assert set(decision.weights) == {"erase", "compose"}
    assert decision.weights["erase"] > decision.weights["compose"]
    assert decision.reason == "'erase': the erase expert, with compose for 'add'."
    assert set(router.route(asked("add a hat, then erase the dog"), top_k=1).weights) == {"erase"}
    assert set(router.route(asked("get rid of the dog"), top_k=5).weights) == {"erase"}


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from(
                ["remove", "add", "make", "it", "the", "dog", "look", "like", "background", "but", "keep", "red"]
            )
        ).map(" ".join),
    ),
    st.booleans(),
    st.booleans(),
    st.integers(1, 8),
)
def test_every_decision_is_a_distribution_with_a_reason_and_is_repeated(router, text, masked, reference, top_k):
    features = asked(text, masked=masked, reference=reference)
    decision = router.route(features, top_k=top_k)

    assert math.isclose(sum(decision.weights.values()), 1, abs_tol=1e-9)
    assert math.isclose(sum(decision.probabilities.values()), 1, abs_tol=1e-9)
    assert 1 <= len(decision.weights) <= top_k and all(weight > 0 for weight in decision.weights.values())
    assert set(decision.probabilities) == {"erase", "compose", "style", "identity", "reference", "base"}
    assert decision.router == "rules" and decision.feasible == 1.0
    assert decision.reason.endswith(".")
    assert router.route(features, top_k=top_k) == decision


def test_order_decides_only_between_equals(make_expert):
    first, second = make_expert("erase-a", "erase"), make_expert("erase-b", "erase")

    assert RulesRouter([first, second]).route(asked("erase it"), top_k=1).weights == {"erase-a": 1.0}
    assert RulesRouter([second, first]).route(asked("erase it"), top_k=1).weights == {"erase-b": 1.0}
