import json
import time

import pytest
import yaml

from careedit.cli.main import main
from careedit_deployments.ab.guard import ArmGuard
from careedit_deployments.ab.status import arm_statuses, mean_with_interval, share_with_interval
from careedit_deployments.state.records import AssignmentRecord, FeedbackRecord, new_id
from careedit_deployments.telemetry.metrics import Metrics, Recording


def feedback(edits: tuple[str, ...], **fields) -> FeedbackRecord:
    return FeedbackRecord(id=new_id("feedback"), edits=edits, created=time.time(), **fields)


@pytest.fixture
def filled(make_config, with_store, add_edits):
    """A store with edits, feedback and a cut; arm a does well, arm b badly."""

    async def work(store):
        config = make_config()
        good = await add_edits(store, "a", "mmmmmmmmmf", 0.8)
        bad = await add_edits(store, "b", "mffff", 0.4)
        await add_edits(store, "b", "cro")
        await add_edits(store, "mirror", "mm", 0.9, shadow_of=good[0])
        await store.feedback.add(feedback((good[0], bad[1]), winner=bad[1]))  # both are compared again below
        await store.feedback.add(feedback((good[0], bad[0]), winner=good[0]))
        await store.feedback.add(feedback((bad[1], good[1]), winner=good[1]))
        await store.feedback.add(feedback((good[2], bad[2])))
        await store.feedback.add(feedback((good[0], good[1]), winner=good[1]))  # says nothing of arms
        await store.feedback.add(feedback((good[0],), rating=5))
        await store.feedback.add(feedback((good[1],), rating=4))
        await store.feedback.add(feedback(("edit_gone", good[3]), winner=good[3]))
        for index in range(3):
            assigned = AssignmentRecord(user_sha256=f"{index}", salt=config.ab_salt, arm="a", created=time.time())
            await store.arms.assign(assigned)
        await ArmGuard(config.arms, store, Metrics(Recording())).check()

    with_store(work)
    return make_config()


def test_a_status_tells_traffic_errors_scores_verdicts_and_cuts(filled, with_store) -> None:
    a, b, mirror = with_store(lambda store: arm_statuses(filled, store))
    assert (a.arm, a.edits, a.users, a.share, a.cut) == ("a", 10, 3, 1.0, False)
    assert a.errors is not None and a.errors.value == pytest.approx(0.1)
    assert a.judge is not None and (a.judge.value, a.judge.count) == (pytest.approx(0.8), 10)
    assert (a.wins, a.losses, a.ties) == (3, 0, 1)
    assert a.rating is not None and a.rating.value == 4.5
    assert (b.edits, b.share, b.cut) == (5, 0.0, True), (
        "what users gave up, asked wrongly or found no room for counts neither way"
    )
    assert (b.wins, b.losses, b.ties) == (0, 2, 1)
    assert b.reason == "4 of its latest 5 edits failed; the limit is 20%." and b.since is not None
    assert (mirror.shadow, mirror.edits, mirror.share, mirror.wins) == (True, 2, 0.0, 0)


def test_a_window_leaves_out_what_is_older(filled, with_store) -> None:
    a, *_ = with_store(lambda store: arm_statuses(filled, store, since=time.time() + 60))
    assert (a.edits, a.errors, a.judge, a.seconds, a.wins) == (0, None, None, None, 0)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"), [(0, 10, 0.0, 0.2775), (1, 10, 0.0179, 0.4042), (10, 10, 0.7225, 1.0)]
)
def test_the_interval_of_a_share_is_wilsons(hits: int, count: int, low: float, high: float) -> None:
    found = share_with_interval(hits, count)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_the_interval_of_a_mean_shrinks_with_the_root_of_the_count() -> None:
    few, many = mean_with_interval([0.0, 1.0] * 8), mean_with_interval([0.0, 1.0] * 128)
    assert few is not None and many is not None
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4, rel=0.05)
    assert few.value == 0.5 and (few.high - few.low) / 2 == pytest.approx(1.96 * 0.5164 / 4, rel=1e-3)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_one_score_is_no_mean(values: list[float]) -> None:
    assert mean_with_interval(values) is None


@pytest.fixture
def config_file(filled, tmp_path) -> str:
    path = tmp_path / "ab.yaml"
    path.write_text(yaml.safe_dump(filled.model_dump(mode="json")), "utf-8")
    return str(path)


def test_the_command_prints_a_row_per_arm_and_says_why_one_is_cut(config_file, capsys) -> None:
    assert main(["ab", "status", "--config", config_file]) == 0
    out, err = capsys.readouterr()
    rows = {line.split("\t")[0]: line.split("\t") for line in out.splitlines()}
    assert rows["arm"][:3] == ["arm", "set", "traffic"]
    assert rows["a"][2:7] == ["100%", "3", "10", "10.0%", "0.80 (0.80 to 0.80, 10)"]
    assert rows["b"][-1] == "out" and rows["mirror"][2] == "shadow"
    assert "b is out of traffic since" in err and "4 of its latest 5 edits failed" in err


def test_the_command_prints_one_json_document(config_file, capsys) -> None:
    assert main(["ab", "status", "--config", config_file, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["version"] == 1
    assert [(arm["arm"], arm["cut"]) for arm in document["arms"]] == [("a", False), ("b", True), ("mirror", False)]


def test_an_arm_is_restored_and_cut_by_command(config_file, capsys, with_store) -> None:
    assert main(["ab", "restore", "b", "--config", config_file]) == 0
    assert with_store(lambda store: store.arms.disabled()) == frozenset()
    assert main(["ab", "cut", "b", "--config", config_file, "--reason", "Odd colours."]) == 0
    assert with_store(lambda store: store.arms.disabled()) == {"b"}
    assert "b was put back into traffic." in capsys.readouterr().out


def test_a_mistake_is_a_sentence(config_file, capsys) -> None:
    assert main(["ab", "restore", "a", "--config", config_file]) == 1
    assert "The arm 'a' is not out of traffic; it need not be restored." in capsys.readouterr().err
