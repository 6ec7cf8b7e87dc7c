"""The stages of one edit, from its spans."""

from __future__ import annotations

import pytest

from careedit_deployments.bench.spans import ReceivedSpan
from careedit_deployments.bench.stages import STAGES, Timed, split

SPANS = {
    "request": (0.010, 0.420),
    "read": (0.011, 0.013),
    "decode": (0.013, 0.016),
    "route": (0.017, 0.030),
    "edit": (0.031, 0.400),
    "expert": (0.036, 0.390),
    "record": (0.400, 0.408),
    "answer": (0.409, 0.415),
}
TIMED = Timed(begin=0.0, end=0.430, client=0.004, computed={"prepare": 0.02, "denoise": 0.3, "finish": 0.03})


def span(name: str, begin: float, end: float) -> ReceivedSpan:
    return ReceivedSpan(name, "careedit", "t", name, "", begin, end, error=False, attributes={}, raw="")


def test_the_stages_of_an_edit_are_all_of_the_time_that_its_client_waits() -> None:
    found = split(TIMED, {name: span(name, *times) for name, times in SPANS.items()})

    assert set(found) == set(STAGES)
    assert sum(found.values()) == pytest.approx(0.430)
    assert found["way_in"] == pytest.approx(0.008)
    assert found["way_to_expert"] == pytest.approx(0.005)
    assert found["replica"] == pytest.approx(0.004)
    assert found["way_from_expert"] == pytest.approx(0.010)
    assert found["ingress"] == pytest.approx(0.041 - 0.032)


def test_an_edit_in_the_process_of_the_ingress_has_no_way_to_its_expert() -> None:
    found = split(TIMED, {name: span(name, *times) for name, times in SPANS.items() if name != "expert"})

    assert (found["way_to_expert"], found["way_from_expert"]) == (0.0, 0.0)
    assert sum(found.values()) == pytest.approx(0.430)
