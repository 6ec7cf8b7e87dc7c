"""The loop and Ray Data, held to one contract; what only a cluster can do wrong."""

from functools import partial
from pathlib import Path

import pytest

from careedit.errors import InputError
from careedit_eval.errors import RunError
from careedit_eval.pipeline import LocalRunner, Stage, Store, evaluate
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.pipeline.ray_data import pool_size, pool_sizes
from careedit_eval.results import EDITS_FILE, SCORES_FILE
from careedit_eval.suite import Part
from scripted_eval import Doubles, Hangs, arm, suite

# Ray Data 2.60 warns of its own settings as it makes its defaults, and as it copies them.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*deprecated:DeprecationWarning:ray\.data\.context")


def test_a_loop_works_on_every_item_once_in_batches() -> None:
    batches = list(LocalRunner().run(Stage("doubling", Doubles, batch=4), list(range(30))))
    assert [number for batch in batches for number, _ in batch] == list(range(0, 60, 2))
    assert max(map(len, batches)) == 4
    assert list(LocalRunner().run(Stage("doubling", Doubles, batch=4), [])) == []


def test_both_runners_make_the_same_files(ray_runner, tmp_path: Path) -> None:
    wanted = suite(
        arm("a", fail="s003"), arm("b", by=80), n=10, seeds=(1, 2), rows=("identity",), workers={"edit": 1, "score": 1}
    )
    for name, runner in (("ray", ray_runner), ("local", LocalRunner())):
        found = evaluate(make_plan(wanted), Store(tmp_path / name / "store"), runner)
        found.table.write(tmp_path / name)
    for file in (EDITS_FILE, SCORES_FILE):
        assert (tmp_path / "ray" / file).read_bytes() == (tmp_path / "local" / file).read_bytes()


def test_edits_that_are_measured_while_later_ones_are_made_give_the_same_files(ray_runner, tmp_path: Path) -> None:
    def wanted(*arms, **workers):
        pairwise = (Part(name="scripted_eval:sharper"),)
        return suite(*arms, n=10, seeds=(1, 2), rows=("identity",), pairwise=pairwise, workers=workers)

    said: list[tuple[str, int, int]] = []
    for name, runner, overlap in (("ray", ray_runner, True), ("local", LocalRunner(), None)):
        store = Store(tmp_path / name / "store")
        # A run that ended early: one of the two sets is edited, half of it is measured.
        first = make_plan(wanted(arm("a", fail="s003"), edit=1, score=1))
        evaluate(first, store, LocalRunner())
        whole = make_plan(wanted(arm("a", fail="s003"), arm("b", by=80), edit=1, score=1, overlap=overlap))
        found = evaluate(whole, store, runner, done=lambda *one: said.append(one))
        found.table.write(tmp_path / name)
        assert (found.edited, found.measured) == (20 + 2, 20 + 2 * 9)  # b, s003 of a again; b's scores, and the pairs
    for file in (EDITS_FILE, SCORES_FILE):
        assert (tmp_path / "ray" / file).read_bytes() == (tmp_path / "local" / file).read_bytes()
    assert ("editing and measuring", 22, 22) in said and ("editing", 22, 22) in said
    assert ("measuring", 0, 0) in said, "everything was measured meanwhile"


def test_overlap_without_room_for_both_kinds_of_workers_is_refused(tmp_path: Path) -> None:
    plan = make_plan(suite(arm("a"), workers={"overlap": True}))
    with pytest.raises(InputError, match="do not fit at the same time"):
        evaluate(plan, Store(tmp_path), LocalRunner())


def test_a_cluster_does_so_too_and_a_worker_that_dies_costs_its_batch_a_second_try(ray_runner, tmp_path: Path) -> None:
    stage = Stage("doubling", partial(Doubles, 13, str(tmp_path)), batch=2, workers=2)
    batches = list(ray_runner.run(stage, list(range(20))))
    assert (tmp_path / "died").exists()
    assert sorted(number for batch in batches for number, _ in batch) == list(range(0, 40, 2))
    assert max(map(len, batches)) == 2
    assert list(ray_runner.run(stage, [])) == []


def test_a_stage_that_stands_still_is_given_up_in_a_sentence(ray_runner) -> None:
    stage = Stage("waiting", Hangs, batch=1, workers=1, stall_timeout_s=3)
    done = []
    with pytest.raises(RunError, match=r"Nothing was finished in 3 s of waiting.*same command again"):
        done.extend(item for batch in ray_runner.run(stage, [1, 2, 3]) for item in batch)
    assert set(done) <= {1, 2}


@pytest.mark.parametrize(
    ("stage", "resources", "size"),
    [
        (Stage("x", Doubles, 1), {"CPU": 4}, 3),
        (Stage("x", Doubles, 1, workers=2), {"CPU": 4}, 2),
        (Stage("x", Doubles, 1, num_gpus=1), {"CPU": 4, "GPU": 2}, 2),
        (Stage("x", Doubles, 1, num_gpus=0.25), {"CPU": 1, "GPU": 1}, 4),
        (Stage("x", Doubles, 1), {"CPU": 1}, None),
        (Stage("x", Doubles, 1, workers=4), {"CPU": 4}, None),
        (Stage("x", Doubles, 1, num_gpus=1), {"CPU": 4}, None),
    ],
)
def test_a_pool_leaves_a_cpu_free_and_never_waits_for_what_is_not_there(stage, resources, size) -> None:
    if size is None:
        with pytest.raises(InputError, match=r"ask for less|give it 2"):
            pool_size(stage, resources)
    else:
        assert pool_size(stage, resources) == size


@pytest.mark.parametrize(
    ("editing", "measuring", "resources", "sizes"),
    [
        ({"num_gpus": 1}, {}, {"CPU": 4, "GPU": 2}, [2, 1, 3]),
        ({"num_gpus": 1, "workers": 1}, {"num_gpus": 0.5}, {"CPU": 2, "GPU": 2}, [1, 1, 2]),
        ({"workers": 1}, {"workers": 1}, {"CPU": 3}, [1, 1, 1]),
        ({"num_gpus": 1}, {"num_gpus": 1}, {"CPU": 4, "GPU": 2}, None),  # editing takes every GPU
        ({}, {"workers": 1}, {"CPU": 4}, None),
    ],
)
def test_stages_at_the_same_time_share_what_there_is(editing, measuring, resources, sizes) -> None:
    last = Stage("c", Doubles, 1, **measuring)
    first = Stage("a", Doubles, 1, **editing, then=Stage("b", Doubles, 1, on_driver=True, then=last))
    if sizes is None:
        with pytest.raises(InputError, match=r"ask for less|give it 2"):
            pool_sizes(first.chain, resources)
    else:
        assert pool_sizes(first.chain, resources) == sizes
