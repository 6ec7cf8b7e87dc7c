"""Routers by name, as an expert set's file states them, and the fixed router."""

import math
import subprocess
import sys

import pytest

from careedit.errors import CareEditError, InputError, ManifestError, UnknownExpertError
from careedit.experts.manifest import ExpertManifest
from careedit.routing import (
    FixedRouter,
    Router,
    RoutingFeatures,
    RulesRouter,
    build_router,
    register_router,
    router_kinds,
)

ANY = RoutingFeatures("remove the dog")


def test_the_known_routers_are_built(experts):
    assert isinstance(build_router("rules", experts=experts), RulesRouter)
    assert isinstance(build_router("fixed", experts=experts, options={"expert": "style"}), FixedRouter)
    assert {"fixed", "rules"} <= set(router_kinds())


def test_options_reach_the_router(experts):
    features = RoutingFeatures("remove the dog")
    sure = build_router("rules", experts=experts, options={"temperature": 0.5}).route(features, top_k=1)
    unsure = build_router("rules", experts=experts, options={"temperature": 3}).route(features, top_k=1)
    mixture = build_router("fixed", experts=experts, options={"expert": {"style": 0.5, "erase": 0.5}})

    assert sure.probabilities["erase"] > unsure.probabilities["erase"]
    assert sure.entropy < unsure.entropy
    assert mixture.route(features, top_k=1).weights == {"style": 0.5, "erase": 0.5}


def test_an_unknown_router_is_refused_with_the_known_ones(experts):
    with pytest.raises(ManifestError, match=r"router 'rulez' does not exist; the known ones are .*fixed.*rules"):
        build_router("rulez", experts=experts)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("rules", {"temprature": 1}, "RulesOptions has no field 'temprature'; its fields are temperature"),
        (
            "rules",
            {"temperature": 0},
            "router 'rules' cannot be used: RulesOptions does not accept 0 for its field 'temperature': input should be greater",
        ),
        (
            "rules",
            {"temperature": "hot"},
            "router 'rules' cannot be used: RulesOptions does not accept 'hot' for its field 'temperature'",
        ),
        ("fixed", {}, "router 'fixed' cannot be used: FixedOptions needs the field 'expert'"),
        (
            "fixed",
            {"expert": 3},
            "router 'fixed' cannot be used: FixedOptions does not accept 3 for its field 'expert'",
        ),
    ],
)
def test_unusable_options_are_refused_in_a_sentence(experts, kind, options, said):
    with pytest.raises(ManifestError, match=said):
        build_router(kind, experts=experts, options=options)


def test_options_that_name_an_unknown_expert_are_refused(experts):
    with pytest.raises(UnknownExpertError, match="'magic'"):
        build_router("fixed", experts=experts, options={"expert": "magic"})


def test_a_name_is_registered_once():
    with pytest.raises(CareEditError, match="registered already"):
        register_router("rules")(lambda experts, options: RulesRouter(experts))


def test_a_manifest_is_what_routing_asks_of_an_expert():
    assert {"name", "competence", "handles"} <= set(ExpertManifest.model_fields)


def test_routing_by_rules_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import careedit.routing"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(("name", "reason"), [("style", "the style expert"), ("base", "the base alone")])
def test_one_expert_is_always_chosen(experts, name, reason):
    decision = FixedRouter(name, experts).route(ANY, top_k=1)

    assert decision.weights == {name: 1.0}
    assert decision.router == "fixed"
    assert decision.reason == f"Fixed beforehand: {reason}."
    assert decision.probabilities == {} and decision.entropy == 0 and decision.feasible == 1


def test_a_mixture_is_not_cut_by_top_k(experts):
    decision = FixedRouter({"style": 0.25, "erase": 0.5, "base": 0.25}, experts).route(ANY, top_k=1)

    assert decision.weights == {"style": 0.25, "erase": 0.5, "base": 0.25}
    assert decision.reason == "Fixed beforehand: a mixture of style 0.25, erase 0.50 and base 0.25."


def test_weights_that_are_rounded_are_made_exact(experts):
    decision = FixedRouter({"style": 0.333, "erase": 0.667 - 1e-4}, experts).route(ANY, top_k=2)

    assert math.isclose(sum(decision.weights.values()), 1, abs_tol=1e-12)


@pytest.mark.parametrize("choice", ["stlye", {"stlye": 1.0}])
def test_an_unknown_expert_is_refused_with_the_known_ones(experts, choice):
    with pytest.raises(
        UnknownExpertError, match=r"The expert 'stlye' does not exist; .* erase, compose, .* and 'base'\."
    ):
        FixedRouter(choice, experts)


@pytest.mark.parametrize(
    "weights", [{}, {"style": 0.5}, {"style": 1.5, "erase": -0.5}, {"style": math.nan}, {"style": 1.0, "erase": 0.0}]
)
def test_unusable_weights_are_refused(experts, weights):
    with pytest.raises(InputError, match="positive and sum to 1"):
        FixedRouter(weights, experts)


def test_it_is_a_router(experts):
    assert isinstance(FixedRouter("style", experts), Router)
