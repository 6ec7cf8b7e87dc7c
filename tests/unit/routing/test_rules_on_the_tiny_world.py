"""How often the rules router is right on the tiny world's validation scenes: seen phrasings and held-out ones.

docs/routing.md explains the figures. The bounds are a little below the measured values (seen 1.00, held out 0.94), so
that a rule that breaks another one is found.
"""

from collections import Counter

import pytest
from PIL import Image

from careedit.routing import RoutingFeatures, RulesRouter
from careedit_tiny.world.operations import KINDS
from careedit_tiny.world.samples import draw_sample

PER_KIND = 50


@pytest.fixture(scope="module")
def outcomes(experts):
    """(held out, kind, right) -> number of samples."""
    router, picture, counts = RulesRouter(experts), Image.new("RGB", (8, 8)), Counter()
    for kind in KINDS:
        for index in range(PER_KIND):
            sample = draw_sample(kind, index, "validation")
            left, top, right, bottom = sample.box or (0, 0, 0, 0)
            features = RoutingFeatures(
                sample.instruction,
                references=() if sample.reference is None else (picture,),
                mask_area=(right - left) * (bottom - top),
                mask_bbox=sample.box,
            )
            (chosen,) = router.route(features, top_k=1).weights
            counts[sample.held_out_phrasing, kind, chosen == sample.expert] += 1
    return counts


def accuracy(outcomes, held_out):
    right, wrong = (
        sum(n for (h, _, r), n in outcomes.items() if (h, r) == (held_out, is_right)) for is_right in (1, 0)
    )
    return right / (right + wrong)


def test_seen_phrasings_are_understood(outcomes):
    assert accuracy(outcomes, held_out=False) >= 0.97


def test_most_held_out_phrasings_are_understood(outcomes):
    assert accuracy(outcomes, held_out=True) >= 0.88


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_is_lost(outcomes, kind):
    assert outcomes[False, kind, True] >= 4 * outcomes[False, kind, False]
    assert outcomes[True, kind, True] >= outcomes[True, kind, False]
