from collections import Counter

import pytest

from careedit_deployments.config import Arm
from careedit_deployments.edits.assignment import assign, choose_arm, shadows_of
from careedit_deployments.errors import NotFoundError

USERS = [f"user-{index}" for index in range(4000)]


def arms(**weights: float) -> dict[str, Arm]:
    return {name: Arm(expert_set="tiny", weight=weight) for name, weight in weights.items()}


def assigned(split: dict[str, Arm], disabled: frozenset[str] = frozenset(), salt: str = "salt") -> dict[str, str]:
    return {user: assign(split, salt, user, disabled) for user in USERS}


def test_weights_decide_how_many_users_an_arm_gets() -> None:
    counts = Counter(assigned(arms(a=8, b=1, c=1)).values())
    assert counts["a"] / len(USERS) == pytest.approx(0.8, abs=0.03)
    assert counts["b"] / len(USERS) == pytest.approx(0.1, abs=0.03)


def test_a_user_stays_on_the_same_arm_whatever_the_order_of_the_arms() -> None:
    assert assigned(arms(a=1, b=2)) == assigned(arms(b=2, a=1))


def test_an_assignment_is_the_same_in_every_version_and_process() -> None:
    split = arms(a=1, b=1)
    assert "".join(assign(split, "careedit", f"user-{index}") for index in range(8)) == "bbbbbbaa"


def test_only_the_necessary_share_moves_when_a_weight_changes() -> None:
    before, after = assigned(arms(a=3, b=1)), assigned(arms(a=2, b=2))
    moved = [user for user in USERS if before[user] != after[user]]
    assert {(before[user], after[user]) for user in moved} == {("a", "b")}
    assert len(moved) / len(USERS) == pytest.approx(0.25, abs=0.03)


def test_a_third_arm_takes_users_from_both_and_moves_nobody_between_them() -> None:
    before, after = assigned(arms(a=1, b=1)), assigned(arms(a=1, b=1, c=1))
    assert {after[user] for user in USERS if before[user] != after[user]} == {"c"}


def test_a_cut_moves_only_the_users_of_the_cut_arm_and_spreads_them_by_weight() -> None:
    split = arms(a=1, b=1, c=3)
    before, after = assigned(split), assigned(split, disabled=frozenset({"a"}))
    assert all(after[user] == before[user] for user in USERS if before[user] != "a")
    heirs = Counter(after[user] for user in USERS if before[user] == "a")
    assert set(heirs) == {"b", "c"}
    assert heirs["c"] / heirs.total() == pytest.approx(0.75, abs=0.05)


def test_another_salt_deals_anew() -> None:
    before, after = assigned(arms(a=1, b=1)), assigned(arms(a=1, b=1), salt="other")
    assert sum(before[user] != after[user] for user in USERS) / len(USERS) == pytest.approx(0.5, abs=0.04)


def test_weightless_and_shadow_arms_get_nobody() -> None:
    split = {**arms(a=1, idle=0), "mirror": Arm(expert_set="tiny", weight=9, shadow=True)}
    assert set(assigned(split).values()) == {"a"}


def test_a_cut_of_every_arm_is_ignored() -> None:
    assert set(assigned(arms(a=1, b=1), disabled=frozenset({"a", "b"})).values()) == {"a", "b"}


def test_no_arm_with_weight_is_a_sentence() -> None:
    with pytest.raises(NotFoundError, match="name one as `model`"):
        assign(arms(a=0), "salt", "user")


SETS = {"a": "tiny", "b": "tiny", "c": "flux", "idle": "old", "mirror": "next"}
SPLIT = {**arms(a=1, b=1, c=1, idle=0), "mirror": Arm(expert_set="next", shadow=True)}


@pytest.mark.parametrize(("model", "expected"), [("c", "c"), ("flux", "c"), ("idle", "idle"), ("old", "idle")])
def test_a_model_is_an_arm_or_an_expert_set(model: str, expected: str) -> None:
    assert choose_arm(SPLIT, SETS, model, "salt", "user") == expected


def test_an_arm_that_is_named_answers_even_if_it_was_cut() -> None:
    assert choose_arm(SPLIT, SETS, "a", "salt", "user", disabled={"a"}) == "a"


def test_arms_of_one_set_share_its_users_and_respect_the_cut() -> None:
    assert {choose_arm(SPLIT, SETS, "tiny", "salt", user) for user in USERS[:50]} == {"a", "b"}
    assert {choose_arm(SPLIT, SETS, "tiny", "salt", user, disabled={"a"}) for user in USERS[:50]} == {"b"}


@pytest.mark.parametrize("model", ["gpt-image-1", "mirror", "next"])
def test_an_unknown_model_and_a_shadow_are_refused_with_the_names_there_are(model: str) -> None:
    with pytest.raises(NotFoundError, match=r"give one of a, b, c, flux, idle, old, tiny") as caught:
        choose_arm(SPLIT, SETS, model, "salt", "user")
    assert repr(model) in str(caught.value)


def test_without_a_model_the_split_decides() -> None:
    assert choose_arm(SPLIT, SETS, None, "salt", "user") == assign(SPLIT, "salt", "user")


def test_a_shadow_gets_its_share_of_the_requests() -> None:
    split = {**arms(a=1), "mirror": Arm(expert_set="tiny", shadow=True, shadow_share=0.25)}
    copied = [shadows_of(split, "salt", user) for user in USERS]
    assert set(copied) == {(), ("mirror",)}
    assert sum(map(len, copied)) / len(USERS) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(("share", "expected"), [(0.0, ()), (1.0, ("mirror",))])
def test_a_share_of_nothing_or_everything_is_exact(share: float, expected: tuple[str, ...]) -> None:
    split = {**arms(a=1), "mirror": Arm(expert_set="tiny", shadow=True, shadow_share=share)}
    assert {shadows_of(split, "salt", user) for user in USERS} == {expected}
