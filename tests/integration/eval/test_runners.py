"""The loop and Ray Data, held to one contract; what only a cluster can do wrong."""

from functools import partial
from pathlib import Path

import pytest

from careedit.errors import InputError
from careedit_eval.errors import RunError
from careedit_eval.pipeline import LocalRunner, Stage, Store, evaluate
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.pipeline.ray_data import pool_size
from careedit_eval.results import EDITS_FILE, SCORES_FILE
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
