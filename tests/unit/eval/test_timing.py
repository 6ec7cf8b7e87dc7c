"""The time of an edit: both sets by turns on the same samples, what its interval says, and what the gate makes of it."""

import json
import math
from pathlib import Path

import pytest

from careedit.errors import InputError
from careedit_eval.editors import Edited
from careedit_eval.gate import freeze, judge_run
from careedit_eval.pipeline import LocalRunner, Store, evaluate
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.report import analyse, write_analysis, write_report
from careedit_eval.runs import load_run
from careedit_eval.suite import Arm, Gate, Part, Timing
from careedit_eval.timing import TimedSample, slowdown
from scripted_eval import finished, painter, suite

CALLS: list[tuple[str, str, int]] = []
CLOCK = [0.0]


class Clocked:
    """Takes `seconds` times a drift that grows with every edit, as a machine does that gets slower; fails where it is told."""

    concurrency = 1

    def __init__(self, name: str, seconds: float, drift: float = 0.0, noise: float = 0.0, fail: str = "") -> None:
        self._name, self._seconds, self._drift, self._noise, self._fail = name, seconds, drift, noise, fail

    def edit(self, work) -> Edited:
        CALLS.append((self._name, work.sample_id, work.seed))
        CLOCK[0] += 1
        if self._fail and (self._fail == "all" or work.sample_id == self._fail) and work.seed > 1000:
            raise ValueError("out of breath")
        wobble = math.exp(self._noise * math.sin(12.9898 * CLOCK[0]))
        return Edited(painter().edit(work).image, seconds=self._seconds * (1 + self._drift * CLOCK[0]) * wobble)


def clocked(**options) -> Clocked:
    return Clocked(**options)


@pytest.fixture(autouse=True)
def _calm():
    CALLS.clear()
    CLOCK[0] = 0.0


def timed(name: str, seconds: float, **options) -> Arm:
    return Arm(
        name=name,
        kind="custom",
        editor=Part(name=f"{__name__}:clocked", options={"name": name, "seconds": seconds, **options}),
    )


def raced(a: Arm, b: Arm, *, n: int = 12, **fields):
    gate = Gate(margins={"bright": 0.1}, max_slowdown=1.2)
    return suite(a, b, n=n, **{"compare": ({"a": "a", "b": "b"},), "gate": gate, **fields})


def check_of(run):
    return next(check for check in judge_run(run).checks if check.name == "slowdown")


def test_both_sets_edit_the_same_samples_by_turns_after_a_warm_up(tmp_path: Path) -> None:
    wanted = raced(timed("a", 1), timed("b", 1), n=40, timing=Timing(samples=3, rounds=2))
    run = finished(wanted, tmp_path)
    calls = CALLS[80:]
    assert [name for name, _, _ in calls] == ["a", "b", *("a", "b", "b", "a") * 6]
    samples = [sample for _, sample, _ in calls[2::8]]
    assert samples == ["s000", "s013", "s026"], "spread over the benchmark"
    seeds = [seed for _, _, seed in calls[2:10]]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3] and len({*seeds}) == 4 and min(seeds) > 1_000_003
    pair = load_run(run.folder).timing.pair("a", "b")
    assert [one.sample_id for one in pair.samples] == samples and len(pair.samples[0].seconds_a) == 4
    assert {"cpu", "cores", "device of a"} <= set(pair.machine)


def test_a_machine_that_slows_down_all_the_while_says_nothing_against_a_set(tmp_path: Path) -> None:
    # The stored seconds of b, which was edited later, are far larger; by turns both are the same.
    run = finished(raced(timed("a", 1, drift=0.02), timed("b", 1, drift=0.02), n=48), tmp_path)
    lines = [[line.seconds for line in run.table.edits_of("drawn", arm).values()] for arm in "ab"]
    assert sum(lines[1]) > 1.5 * sum(lines[0])
    check = check_of(run)
    assert check.outcome == "pass" and check.value < 1.01


@pytest.mark.parametrize(
    ("a", "b", "outcome"),
    [
        ({"seconds": 1}, {"seconds": 1.1, "noise": 0.05}, "pass"),
        ({"seconds": 1}, {"seconds": 1.4, "noise": 0.05}, "worse"),
        ({"seconds": 1, "noise": 1.0}, {"seconds": 1.2, "noise": 1.0}, "inconclusive"),
    ],
)
def test_the_interval_decides_and_a_wide_one_decides_nothing(tmp_path: Path, a: dict, b: dict, outcome: str) -> None:
    check = check_of(finished(raced(timed("a", **a), timed("b", **b)), tmp_path))
    assert check.outcome == outcome and "timed by turns" in check.sentence


def test_a_resumed_run_is_timed_again_and_rescoring_is_not(tmp_path: Path) -> None:
    wanted = raced(timed("a", 1), timed("b", 1), timing=Timing(samples=2))
    store = Store(tmp_path)
    counts = []
    for edit in (True, True, False):
        CALLS.clear()
        found = evaluate(make_plan(wanted), store, LocalRunner(), edit=edit)
        counts.append((found.edited, len(CALLS), found.timing is not None))
    assert counts == [(24, 34, True), (0, 10, True), (0, 0, False)]


def test_nothing_is_timed_where_nobody_asks(tmp_path: Path) -> None:
    fields = {"compare": ({"a": "a", "b": "b"},)}
    quiet = evaluate(make_plan(suite(**fields)), Store(tmp_path / "1"), LocalRunner())
    asked = evaluate(
        make_plan(suite(**fields, metrics=({"name": "scripted_eval:brightness"}, {"name": "latency"}))),
        Store(tmp_path / "2"),
        LocalRunner(),
    )
    off = evaluate(make_plan(suite(**fields, timing=Timing(samples=0))), Store(tmp_path / "3"), LocalRunner())
    assert (quiet.timing, off.timing) == (None, None) and asked.timing is not None
    with pytest.raises(InputError, match="needs the timing, which has 0 samples"):
        raced(timed("a", 1), timed("b", 1), timing=Timing(samples=0))


def test_a_set_that_cannot_be_timed_is_inconclusive_and_says_why(tmp_path: Path) -> None:
    some = finished(raced(timed("a", 1), timed("b", 1, fail="s006")), tmp_path, "some")
    pair = some.timing.pair("a", "b")
    assert [one.sample_id for one in pair.samples if one.error] == ["s006"] and check_of(some).outcome == "pass"
    CALLS.clear()
    none = finished(raced(timed("a", 1), timed("b", 1, fail="all")), tmp_path, "none")
    check = check_of(none)
    assert check.outcome == "inconclusive" and "ValueError: out of breath" in check.sentence
    assert len(CALLS) == 12 + 4, "a set that does not warm up on two samples is given up"
    row = suite(timed("a", 1), rows=("identity",), compare=({"a": "identity", "b": "a"},), timing=Timing())
    (only,) = finished(row, tmp_path, "row").timing.pairs
    assert only.missing == "identity makes no edit that takes time."


def test_a_frozen_baseline_is_timed_where_its_set_is_compared_and_still_the_same(tmp_path: Path) -> None:
    old = finished(raced(timed("a", 1), timed("b", 1)), tmp_path, "old")
    freeze(old, "a", ["bright"]).write(tmp_path / "frozen.json")
    gate = Gate(baseline="frozen.json", set="b", margins={"bright": 0.1}, max_slowdown=1.2)
    alone = finished(suite(timed("b", 1), n=12, gate=gate), tmp_path, "alone")
    assert "add a to the suite's sets" in check_of(alone).sentence
    assert check_of(alone).outcome == "inconclusive"
    both = finished(raced(timed("a", 1), timed("b", 1), gate=gate), tmp_path, "both")
    assert check_of(both).outcome == "pass"


def test_stored_seconds_inform_and_are_neither_tested_nor_gated(tmp_path: Path) -> None:
    metrics = ({"name": "scripted_eval:brightness"}, {"name": "latency"})
    wanted = suite(timed("a", 1), timed("b", 2), n=12, metrics=metrics, compare=({"a": "a", "b": "b"},))
    run = finished(wanted, tmp_path)
    analysis = analyse(run)
    lines = [one for one in analysis.compared[0].differences if one.output == "latency"]
    assert lines and {(one.p, one.interval, one.verdict) for one in lines} == {(None, None, "information only")}
    (speed,) = analysis.speed
    assert speed.found.ratio == pytest.approx(2) and "12 samples of drawn" in speed.sentence
    write_analysis(run, analysis)
    page = write_report(run, analysis).read_text("utf-8")
    assert speed.sentence in page and "load average" in page and "information only" in page
    assert json.loads((run.folder / "comparison.json").read_text())["timing"][0]["found"]["samples"] == 12
    for fields in ({"primary": "latency"}, {"gate": Gate(margins={"latency": 0.1})}):
        with pytest.raises(InputError, match="latency is information only"):
            make_plan(suite(metrics=metrics, compare=({"a": "a", "b": "b"},), **fields))


def test_the_ratio_is_students_t_on_one_log_ratio_per_sample() -> None:
    def sample(i: int, a: tuple[float, ...], b: tuple[float, ...]) -> TimedSample:
        return TimedSample(benchmark="x", sample_id=str(i), seconds_a=a, seconds_b=b)

    found = slowdown([sample(0, (1, 4), (2, 2)), sample(1, (1, 1), (4, 1)), sample(2, (3, 3), (3, 3))])
    # Log ratios 0, log 2, 0: mean log(2) / 3, standard error log(2) / 3, t(2) at 0.975 = 4.3027.
    step = math.log(2) / 3
    assert found.ratio == pytest.approx(math.exp(step))
    assert (found.low, found.high) == pytest.approx(
        (math.exp(step - 4.30265 * step), math.exp(step + 4.30265 * step)), rel=1e-4
    )
    assert slowdown([sample(0, (1, 1), (1, 1))]) is None
