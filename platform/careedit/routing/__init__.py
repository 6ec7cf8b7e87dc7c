"""Routing: which experts an edit uses, and why."""

from careedit.routing.base import FixedRouter, RoutableExpert, Router
from careedit.routing.build import TransformerOptions, build_router, register_router, router_kinds
from careedit.routing.features import CONDITIONS, Encoder, RouterTokens, RoutingFeatures, features_of
from careedit.routing.rules import RulesRouter
from careedit.routing.topk import TopK, entropy, softmax, softmax_top_k

__all__ = [
    "CONDITIONS",
    "Encoder",
    "FixedRouter",
    "RoutableExpert",
    "Router",
    "RouterTokens",
    "RoutingFeatures",
    "RulesRouter",
    "TopK",
    "TransformerOptions",
    "build_router",
    "entropy",
    "features_of",
    "register_router",
    "router_kinds",
    "softmax",
    "softmax_top_k",
]
