"""The simulation against queueing theory's closed forms, and against days small enough to be worked out by hand."""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from math import factorial
from statistics import fmean

import pytest

from careedit_deployments.deployment import Scaling
from careedit_deployments.planning.model import Filter, Profile, Workload
from careedit_deployments.planning.runs import Outcome, edits_of, pools_of, run, seconds_alone
from careedit_deployments.planning.simulate import Edit

PLAIN = Profile(
    name="plain",
    source="made up",
    step_s=1.0,
    encode_s=0.0,
    decode_s=0.0,
    judge_s=0.5,
    overhead_s=0.0,
    start_s=10.0,
    shared_ratio=1.25,
    gpus=1.0,
    judge_gpus=0.5,
)
"""A replica that gains nothing from a batch: two edits in hand take twice as long."""


def stream(rate: float, service: str, mean: float = 1.0, seed: int = 3) -> Iterator[tuple[float, Edit]]:
    """Poisson arrivals with exponential or fixed work."""
    draw = random.Random(seed)
    while True:
        yield draw.expovariate(rate), Edit("p", (draw.expovariate(1 / mean) if service == "random" else mean,))


def erlang_c(servers: int, load: float) -> float:
    """Probability of having to wait in M/M/c (Erlang 1917)."""
    last = load**servers / factorial(servers) * servers / (servers - load)
    return last / (sum(load**k / factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize(("servers", "rate"), [(1, 0.7), (4, 3.2), (12, 10.0)])
def test_a_queue_with_random_work_waits_as_erlangs_formula_says(servers: int, rate: float) -> None:
    outcome = run(stream(rate, "random"), {"p": servers}, PLAIN, edits=30_000, warm_up=2000)
    expected = 1.0 + erlang_c(servers, rate) / (servers - rate)
    assert fmean(outcome.seconds) == pytest.approx(expected, rel=0.08)
    assert outcome.busy == pytest.approx(rate / servers, rel=0.03)


@pytest.mark.parametrize("rate", [0.5, 0.8])
def test_a_queue_with_fixed_work_waits_as_pollaczek_and_khinchin_say(rate: float) -> None:
    outcome = run(stream(rate, "fixed"), {"p": 1}, PLAIN, edits=30_000, warm_up=2000)
    assert fmean(outcome.seconds) == pytest.approx(1.0 + rate / (2 * (1 - rate)), rel=0.06)


@pytest.mark.parametrize("service", ["fixed", "random"])
def test_a_replica_that_holds_all_edits_at_once_is_a_shared_processor(service: str) -> None:
    """M/G/1-PS: the mean time is E[S] / (1 - load), whatever the work's distribution (Kleinrock 1976, 4.4)."""
    outcome = run(stream(0.6, service), {"p": 1}, PLAIN, held=10_000, edits=30_000, warm_up=2000)
    assert fmean(outcome.seconds) == pytest.approx(1.0 / 0.4, rel=0.08)


def day(*came: float, work: float = 10.0) -> Sequence[tuple[float, Edit]]:
    """Edits that come at these seconds."""
    return [(now - before, Edit("p", (work,))) for before, now in zip((0.0, *came), came, strict=False)]


def test_two_edits_on_one_replica_that_holds_both() -> None:
    # From 0 to 4 the first is alone; then each has half the speed: the first needs 6 more, so 12 s; then the second alone.
    outcome = run(day(0, 4), {"p": 1}, PLAIN, held=2, edits=2, warm_up=0)
    assert outcome.seconds == pytest.approx((16.0, 16.0))
    assert outcome.duration_s == pytest.approx(20.0)


def test_two_edits_on_one_replica_that_holds_one() -> None:
    outcome = run(day(0, 4), {"p": 1}, PLAIN, held=1, edits=2, warm_up=0)
    assert outcome.seconds == pytest.approx((10.0, 16.0))
    assert (outcome.gpu_seconds, outcome.busy) == pytest.approx((20.0, 1.0))


def test_a_step_that_costs_the_same_for_any_rows_lets_edits_share_for_nothing() -> None:
    free = PLAIN.model_copy(update={"fixed": 1.0})
    outcome = run(day(0, 4), {"p": 1}, free, held=2, edits=2, warm_up=0)
    assert outcome.seconds == pytest.approx((10.0, 10.0))


def test_the_edit_that_finds_a_full_queue_is_turned_away() -> None:
    outcome = run(day(0, 1, 2, 3), {"p": 1}, PLAIN, held=1, queue=2, edits=4, warm_up=0)
    assert outcome.refused == 1
    assert outcome.seconds == pytest.approx((10.0, 19.0, 28.0))


def test_judgements_stand_between_the_previews_and_the_rest() -> None:
    edit = Edit("p", (2.0, 3.0), judgements=3)
    outcome = run([(0.0, edit)], {"p": 1}, PLAIN, judges=2, edits=1, warm_up=0)
    assert outcome.seconds == pytest.approx((2.0 + 2 * 0.5 + 3.0,))
    assert outcome.gpu_seconds == pytest.approx(6.0 + 2 * 6.0 * 0.5)


def test_the_early_filter_costs_its_previews_and_spares_nothing_else() -> None:
    asked = Filter(candidates=6, preview_steps=4)
    plain, none = seconds_alone(PLAIN, "merged", 28, None)
    (before, after), judgements = seconds_alone(PLAIN, "merged", 28, asked)
    assert (plain, none, judgements) == ((28.0,), 0, 6)
    assert (before, after) == (24.0, 24.0)  # M m + (n - m) steps
    slow, _ = seconds_alone(PLAIN, "shared", 28, None)
    assert slow == (35.0,)


def test_a_burst_brings_replicas_and_their_start_is_waited_for() -> None:
    settings = Scaling(min_replicas=1, max_replicas=3, target_step_seconds=10, upscale_delay_s=5, downscale_delay_s=20)
    outcome = run(day(0, 0, 0), {"p": 1}, PLAIN, held=1, scaling=settings, edits=3, warm_up=0)
    # The look at 1 s wants three; 5 s later they are asked for, 10 s later they are there, and the first one is free at 10.
    assert outcome.seconds == pytest.approx((10.0, 20.0, 26.0))
    alone = run(day(0, 0, 0), {"p": 1}, PLAIN, held=1, edits=3, warm_up=0)
    assert alone.seconds == pytest.approx((10.0, 20.0, 30.0))
    assert outcome.gpu_seconds == pytest.approx(26 + 2 * 20)


def test_idle_replicas_go_after_the_delay() -> None:
    settings = Scaling(min_replicas=1, max_replicas=3, target_step_seconds=10, upscale_delay_s=0, downscale_delay_s=20)
    quiet = run(day(0, 200), {"p": 3}, PLAIN, held=1, scaling=settings, edits=2, warm_up=0)
    fixed = run(day(0, 200), {"p": 3}, PLAIN, held=1, edits=2, warm_up=0)
    assert fixed.gpu_seconds == pytest.approx(3 * 210)
    assert quiet.gpu_seconds == pytest.approx(210 + 2 * 21)


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    def once(seed: int) -> Outcome:
        workload = Workload(
            rate=2.0, steps={4: 1.0, 8: 1.0}, filter=Filter(candidates=2, preview_steps=1), filter_share=0.5
        )
        arrivals = edits_of(workload, PLAIN, "merged", seed)
        return run(
            arrivals, dict.fromkeys(pools_of(workload, "merged"), 4), PLAIN, judges=2, edits=300, warm_up=30, seed=seed
        )

    assert once(1) == once(1) != once(2)


def test_arrivals_have_the_rate_and_the_shares_that_were_asked_for() -> None:
    workload = Workload(rate=5.0, experts={"erase": 3.0, "style": 1.0})
    some = list(islice(edits_of(workload, PLAIN, "merged", 0), 20_000))
    assert sum(gap for gap, _ in some) / 20_000 == pytest.approx(0.2, rel=0.03)
    assert sum(edit.pool == "erase" for _, edit in some) / 20_000 == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(("q", "value"), [(0.5, 5.0), (0.95, 10.0), (0.1, 1.0), (1.0, 10.0)])
def test_a_quantile_is_the_value_at_its_rank(q: float, value: float) -> None:
    seconds = tuple(float(i) for i in range(1, 11))
    outcome = Outcome(seconds=seconds, refused=0, gpu_seconds=1.0, edits=10, busy=1.0, duration_s=1.0)
    assert outcome.quantile(q) == value
