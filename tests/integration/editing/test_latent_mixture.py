"""Mixtures of experts, with experts whose velocities are known."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from careedit.editing import Engine

VALUES = {"base": 0.5, "erase": -2.0, "style": 4.0}


class KnownVelocities:
    """Every expert's velocity is a constant of its own."""

    kind = "shared"

    def __init__(self) -> None:
        self.batches: list[tuple[str, ...]] = []
        self.leased: set[str] = set()

    def velocity(self, rows, inputs):
        assert self.leased == set(rows)
        self.batches.append(tuple(rows))
        per_row = inputs.per_row
        assert all(value.shape[0] == len(rows) for value in per_row.values())
        tokens = per_row["hidden_states"].shape[1]
        return torch.stack([torch.full((tokens, 32), VALUES[row]) for row in rows])

    @contextmanager
    def lease(self, names):
        self.leased = set(names)
        yield
        self.leased = set()


@pytest.fixture
def applier() -> KnownVelocities:
    return KnownVelocities()


@pytest.fixture
def known(base, applier) -> Engine:
    return Engine(base, applier)


def test_a_mixtures_velocity_is_the_weighted_sum(known, applier, make_job):
    state = known.prepare(make_job(weights={"erase": 0.25, "style": 0.75}))
    known.step([state])

    assert torch.equal(state.velocity, torch.full((1, 128, 32), 0.25 * -2 + 0.75 * 4))
    assert applier.batches == [("erase", "style")] and state.nfe == 2


def test_a_masked_mixture_leaves_the_rest_to_the_base(known, applier, make_job):
    state = known.prepare(make_job(masked=True, weights={"erase": 0.25, "style": 0.75}))
    known.step([state])

    mixed, share = 2.5, state.coverage
    assert torch.allclose(state.velocity, (share * mixed + (1 - share) * 0.5).expand(1, 128, 32))
    assert applier.batches == [("erase", "style", "base")] and state.nfe == 3
    assert state.velocity[share.expand_as(state.velocity) == 0].unique().tolist() == [0.5]
    assert state.velocity[share.expand_as(state.velocity) == 1].unique().tolist() == [2.5]
    assert ((share > 0) & (share < 1)).any()


def test_a_single_expert_under_a_mask_costs_one_evaluation(known, applier, make_job):
    state = known.prepare(make_job(masked=True, weights={"style": 1.0}))
    known.step([state])

    assert torch.equal(state.velocity, torch.full((1, 128, 32), 4.0))
    assert applier.batches == [("style",)] and state.nfe == 1


def test_mixtures_and_single_experts_share_a_batch(known, applier, make_job):
    jobs = [
        make_job(seed=1, steps=1),
        make_job(seed=2, steps=3, weights={"style": 0.5, "erase": 0.5}),
        make_job(seed=3, steps=2, masked=True, weights={"erase": 1.0}),
    ]
    states = [known.prepare(job) for job in jobs]
    starts = [state.latents for state in states]
    while any(state.live for state in states):
        known.step(states)

    assert applier.batches == [("base", "erase", "style", "erase"), ("erase", "style", "erase"), ("erase", "style")]
    assert [state.nfe for state in states] == [1, 6, 2]
    # A constant velocity moves the latents from sigma 1 to sigma 0 by just itself, in any number of steps.
    for state, start, velocity in zip(states, starts, (0.5, 1.0, -2.0), strict=True):
        assert torch.allclose(state.latents, start - velocity, atol=1e-5)
