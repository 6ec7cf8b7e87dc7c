import hashlib

import httpx2
import pytest

import policies
from careedit_deployments.policy.contract import ALLOW, Verdict
from fake_backend import FakeBackend, mask_file, picture_file
from served import events_of, serve

SOURCE = picture_file()
FILES = {"image": ("a.png", SOURCE)}
REFUSE, MARK = Verdict(verdict="refuse", reason="Not here."), Verdict(verdict="mark", reason="Look twice.")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "words.txt").write_text("# comment\nforbidden thing\n", encoding="utf-8")
    words = {"name": "words", "use": "careedit_deployments.policy.words:words_list", "stages": ["input"]}
    checks = [
        {**words, "options": {"file": str(folder / "words.txt")}, "levels": ["auto"]},
        {"name": "decided", "use": "policies:decided"},
    ]
    backend = FakeBackend("tiny", shadows=("copy",))
    arms = {"tiny": {"expert_set": "tiny"}, "copy": {"expert_set": "tiny", "shadow": True}}
    with serve(folder, backend, policy={"checks": checks}, arms=arms, jobs={"workers": 1}) as server:
        server.backend = backend
        yield server


@pytest.fixture
def asking(guarded):
    policies.ASKED.clear()
    policies.RULE.clear()
    guarded.backend.calls.clear()
    with httpx2.Client(base_url=guarded.url, timeout=20) as client:
        yield client


def at(stage, verdict, nth=1):
    """A rule: `verdict` at the nth question of a stage, else allow."""
    seen = []

    def rule(about):
        seen.append(about.stage)
        return verdict if about.stage == stage and seen.count(stage) == nth else ALLOW

    policies.RULE[:] = [rule]


def edit(client, **fields):
    return client.post("/v1/images/edits", files=FILES, data={"prompt": "remove it", **fields})


def job_of(client, **fields):
    """A job that has ended."""
    made = client.post("/v1/jobs", files=FILES, data={"prompt": "remove it", **fields}).json()
    events = client.get(f"/v1/jobs/{made['id']}/events")
    return client.get(f"/v1/jobs/{made['id']}").json(), events_of(events)


def test_refused_words_reach_neither_router_nor_replica_and_are_counted(asking, guarded):
    before = guarded.recording.total("careedit_refusals", reason="policy")
    response = edit(asking, prompt="draw a FORBIDDEN\u200b  thing")
    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": "The prompt has a word that this server's policy does not allow; change the prompt.",
        "type": "invalid_request_error",
        "param": None,
        "code": "policy_violation",
    }
    assert not guarded.backend.calls and not policies.ASKED
    assert guarded.recording.total("careedit_refusals", reason="policy") == before + 1
    assert guarded.recording.total("careedit_policy_verdicts", check="words", stage="input", verdict="refused") > 0


def test_moderation_selects_the_checks_that_its_level_has(asking):
    answer = edit(asking, prompt="draw a forbidden thing", moderation="low")
    assert answer.status_code == 200
    assert "notes" not in answer.json()["careedit"] or not answer.json()["careedit"]["notes"]
    assert {about.level for about in policies.ASKED} == {"low"}


def test_a_check_sees_words_pictures_and_the_hash_of_the_file_that_was_sent(asking):
    files = [
        ("image[]", ("a.png", SOURCE)),
        ("image[]", ("b.png", picture_file(colour=(1, 2, 3)))),
        ("mask", mask_file()),
    ]
    assert asking.post("/v1/images/edits", files=files, data={"prompt": "blend it"}).status_code == 200
    before, after = policies.ASKED
    assert (before.stage, before.instruction, after.stage) == ("input", "blend it", "output")
    assert [one.role for one in before.pictures] == ["source", "reference", "mask"]
    assert before.pictures[0].file_sha256 == hashlib.sha256(SOURCE).hexdigest()
    assert [(one.role, one.file_sha256) for one in after.pictures] == [("result", None)]


def test_one_refused_result_of_three_refuses_the_edit_and_the_arm_is_not_blamed(asking, guarded):
    at("output", REFUSE, nth=2)
    response = edit(asking, n="3")
    assert (response.status_code, response.json()["error"]["message"]) == (400, "Not here.")
    assert len(policies.ASKED) == 3, "one input, two results"
    [record, *_] = guarded.run(lambda: guarded.services.store.edits.latest(arm="tiny", limit=1))
    assert (record.outcome, len(record.traces)) == ("refused", 1)
    assert len(guarded.backend.calls) == 1, "a refused edit is not copied to the shadow arm"


def test_a_stream_has_no_previews_and_ends_at_the_refused_result(asking):
    at("output", REFUSE, nth=2)
    events = events_of(edit(asking, n="3", stream="true", partial_images="3", candidate_images="true"))
    assert [name for name, _ in events] == ["image_edit.completed", "error"]
    assert events[1][1]["error"]["code"] == "policy_violation"
    policies.RULE.clear()
    notes = events_of(edit(asking, stream="true", partial_images="3", candidate_images="true"))[0][1]["careedit"][
        "notes"
    ]
    assert [note.split()[0] for note in notes] == ["partial_images", "candidate_images"]


def test_marks_are_in_the_answer_of_an_edit_a_stream_a_job_and_in_the_history_of_a_session(asking):
    policies.RULE[:] = [lambda about: MARK]
    marks = [
        {"check": "decided", "stage": "input", "image": None, "reason": "Look twice."},
        {"check": "decided", "stage": "output", "image": 0, "reason": "Look twice."},
        {"check": "decided", "stage": "output", "image": 1, "reason": "Look twice."},
    ]
    assert edit(asking, n="2").json()["careedit"]["policy"] == marks
    assert events_of(edit(asking, stream="true"))[-1][1]["careedit"]["policy"] == marks[:2]
    job, _ = job_of(asking, n="2")
    assert job["result"]["careedit"]["policy"] == marks
    session = "/v1/sessions/" + asking.post("/v1/sessions", files=FILES).json()["id"]
    turn = asking.post(f"{session}/turns", json={"prompt": "remove it"}).json()["careedit"]
    assert turn["policy"] == marks[:2]
    assert asking.get(f"{session}/turns").json()["data"][0]["policy"] == marks[:2]
    assert asking.get(f"{session}/turns/{turn['turn']}").json()["policy"] == marks[:2]
    policies.RULE.clear()
    assert "policy" not in edit(asking).json()["careedit"]


def test_a_job_is_refused_when_it_is_accepted_or_fails_when_its_result_is(asking):
    at("input", REFUSE)
    response = asking.post("/v1/jobs", files=FILES, data={"prompt": "remove it"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "policy_violation")
    at("output", REFUSE)
    job, events = job_of(asking, partial_images="2", moderation="low")
    assert (job["status"], job["error"]["code"], job["error"]["message"]) == ("failed", "policy_violation", "Not here.")
    assert not {"job.partial_image", "job.image"} & {name for name, _ in events}
    assert {about.level for about in policies.ASKED[1:]} == {"low"}
    assert policies.ASKED[-2].pictures[0].file_sha256 == hashlib.sha256(SOURCE).hexdigest(), "kept with the job"


def test_a_refused_turn_leaves_the_session_as_it_was(asking):
    session = asking.post("/v1/sessions", files=FILES).json()["id"]
    at("output", REFUSE)
    response = asking.post(f"/v1/sessions/{session}/turns", data={"prompt": "remove it"}, files={"x": (None, "")})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "policy_violation")
    assert asking.get(f"/v1/sessions/{session}/turns").json()["data"] == []
    assert policies.ASKED[0].pictures[0].file_sha256 is None, "the session keeps the file without its metadata"


def test_a_shadow_copy_does_not_ask_again(asking, guarded):
    assert edit(asking).status_code == 200
    guarded.run(lambda: _settled(guarded))
    assert [call.arm for call in guarded.backend.calls] == ["tiny", "copy"]
    assert [about.stage for about in policies.ASKED] == ["input", "output"]


async def _settled(guarded):
    for observer in guarded.services.edits._observers:
        if hasattr(observer, "settled"):
            await observer.settled()


@pytest.mark.parametrize(
    ("check", "status"),
    [
        ({"use": "policies:slow", "options": {"seconds": 0.5}, "timeout_s": 0.05}, 503),
        ({"use": "policies:slow", "options": {"seconds": 0.5}, "timeout_s": 0.05, "on_failure": "allow"}, 200),
        ({"use": "policies:broken"}, 503),
        ({"use": "policies:broken", "on_failure": "allow"}, 200),
        ({"use": "policies:at_once"}, 200),
    ],
)
def test_a_check_that_fails_or_hangs_refuses_the_edit_unless_it_is_configured_to_allow(tmp_path, check, status, caplog):
    checks = [{"name": "one", "stages": ["input"], **check}]
    with serve(tmp_path, FakeBackend(), policy={"checks": checks}) as server:
        with httpx2.Client(base_url=server.url, timeout=20) as client:
            response = edit(client, prompt="my secret words")
        assert response.status_code == status
        if status == 503:
            error = response.json()["error"]
            assert (error["code"], "'one'" in error["message"]) == ("policy_unavailable", True)
        verdict = "marked" if "at_once" in check["use"] else "failed"
        assert server.recording.total("careedit_policy_verdicts", check="one", verdict=verdict) == 1
    assert "my secret words" not in caplog.text


def test_the_deadline_of_the_edit_holds_for_a_check(tmp_path):
    checks = [{"name": "one", "use": "policies:slow", "options": {"seconds": 0.5}}]
    with (
        serve(tmp_path, FakeBackend(), policy={"checks": checks}, limits={"deadline_s": 0.1}) as server,
        httpx2.Client(base_url=server.url, timeout=20) as client,
    ):
        assert edit(client).json()["error"]["code"] == "deadline_exceeded"


def test_checked_previews_are_sent_only_if_they_are_allowed(tmp_path):
    policies.ASKED.clear()
    at("output", REFUSE, nth=1)
    policy = {"previews": "checked", "checks": [{"name": "one", "use": "policies:decided", "stages": ["output"]}]}
    with (
        serve(tmp_path, FakeBackend(), policy=policy) as server,
        httpx2.Client(base_url=server.url, timeout=20) as client,
    ):
        events = events_of(edit(client, stream="true", partial_images="2"))
    assert [(name, data.get("partial_image_index")) for name, data in events] == [
        ("image_edit.partial_image", 1),
        ("image_edit.completed", None),
    ]
    assert len(policies.ASKED) == 3
