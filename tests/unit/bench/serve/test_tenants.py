"""Tenants at once: when their edits arrive, and whether they are served equally."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from careedit.errors import CareEditError
from careedit.records import EditRequest, EditResult
from careedit_deployments.bench.tenants import LOAD, arrivals, jain, tenant_loads
from careedit_deployments.bench.workload import BenchPlan, Workload


def test_jains_index_is_one_for_equals_and_one_of_n_for_one_that_has_everything() -> None:
    assert jain([3.0] * 7) == pytest.approx(1.0)
    assert jain([5.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain([1.0, 2.0, 3.0]) == pytest.approx(36 / 42)
    assert jain([0.0, 0.0]) == 0.0


def test_arrivals_are_the_same_each_time_and_give_every_tenant_the_same_demand() -> None:
    due = arrivals(50, 6, edits_per_second=4.0)

    assert due == arrivals(50, 6, edits_per_second=4.0) == sorted(due)
    assert Counter(tenant for _, tenant in due) == dict.fromkeys(range(50), 6)
    assert due[-1][0] == pytest.approx(300 / 4.0, rel=0.05)
    gaps = [after[0] - before[0] for before, after in itertools.pairwise(due)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert spread == pytest.approx(mean, rel=0.25), "the gaps of a Poisson process vary as much as they are long"


def test_a_tenant_that_is_refused_makes_the_index_fall_and_keeps_its_edits_in_the_count() -> None:
    load = Workload(BenchPlan(steps=1, tenant_edits={2: 3}), ("erase",), 64)

    def answered(request: EditRequest) -> EditResult:
        return EditResult(images=(request.image,), traces=())

    def refused(request: EditRequest) -> EditResult:
        raise CareEditError("No.")

    done: list[None] = []
    found = tenant_loads([answered, refused], load, 1000.0, lambda: done.append(None))[2]

    assert found.edits_per_second == LOAD * 1000.0
    assert [(one.edits, one.answered) for one in found.tenants] == [(3, 3), (3, 0)]
    assert found.fairness == pytest.approx(0.5)
    assert found.tenants[1].p95 is None
    assert len(done) == 1
