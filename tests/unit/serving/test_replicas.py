"""The deployments' classes without Ray: what they load, what they refuse, and when they say that they are ill."""

from __future__ import annotations

import asyncio
import shutil
import threading

import pytest
from PIL import Image
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.exceptions import BackPressureError

from careedit import load_editor
from careedit.errors import AdapterError, ExpertError, InputError, ManifestError
from careedit.experts import load_expert_set
from careedit.routing import RoutingFeatures
from careedit.scoring import ScoreRequest
from careedit_deployments.batched import MAX_FAILURES
from careedit_deployments.cluster.router import RouterReplica
from careedit_deployments.config import ScorerConfig
from careedit_deployments.errors import ScorerUnavailableError, UnavailableError
from careedit_deployments.replica.choice import ExpertSettings, SetChoice
from careedit_deployments.replica.live import LiveSet
from careedit_deployments.scorer.pool import RemoteScorer, ScorerPool, load_scorer
from judging import ByPlace

JUDGE = {"backend": "import", "model": "judging:ByPlace"}
PICTURE = Image.new("RGB", (8, 8))
REQUESTS = [ScoreRequest(source=PICTURE, edited=PICTURE, instruction="remove it")] * 2


@pytest.fixture
def routed():
    experts = [
        {"name": name, "competence": name, "handles": [kind]} for name, kind in [("erase", "remove"), ("art", "style")]
    ]
    return {"expert_set": "none", "sha256": "1" * 64, "kind": "rules", "options": {}, "experts": experts}


def test_a_router_is_replaced_in_place_and_a_bad_one_is_refused(routed):
    async def use():
        router = RouterReplica({})
        with pytest.raises(UnavailableError, match="not configured"):
            await router.check_health()
        with pytest.raises(ManifestError, match="The router 'magic' does not exist"):
            await router.reconfigure({**routed, "kind": "magic"})
        await router.reconfigure(routed)
        first = await router.route(RoutingFeatures("remove the red circle"), 1)
        await router.reconfigure({**routed, "sha256": "2" * 64, "kind": "magic"})
        refused = await router.status()
        await router.reconfigure({**routed, "sha256": "3" * 64, "experts": routed["experts"][1:]})
        await router.check_health()
        return first, refused, await router.route(RoutingFeatures("make it a sketch"), 1), await router.status()

    first, refused, second, status = asyncio.run(use())
    assert first.weights == {"erase": 1.0} and second.weights == {"art": 1.0}
    assert refused["sha256"] == "1" * 64 and "'magic'" in refused["refused"]
    assert status == {"sha256": "3" * 64, "refused": None}


def settings(expert=None):
    return ExpertSettings(arm="main", expert=expert, batch=4, threads=1, device="cpu", workers=2, check_seconds=10.0)


def choice(folder, sha256=None):
    return SetChoice(expert_set=str(folder), sha256=sha256 or load_expert_set(folder).sha256)


@pytest.mark.parametrize(("expert", "application"), [("erase", "merged"), (None, "shared")])
def test_a_live_set_edits_as_the_editor_does_and_says_that_it_is_well(
    expert, application, untrained_set, call, events, open_editor
):
    live = LiveSet(settings(expert), choice(untrained_set))
    try:
        live.check()
        wanted = call(seed=3)
        told = events(live, wanted)[0][-1]
        direct = open_editor(application).edit(wanted.request)
        assert told.picture.tobytes() == direct.image.tobytes()
        assert told.trace.application == application
    finally:
        live.retire()
    with pytest.raises(UnavailableError, match="closed"):
        live.scheduler.call(int)


def test_the_shared_pool_of_a_quantised_arm_says_so_and_a_merged_expert_is_refused(untrained_set, call, events):
    live = LiveSet(settings().model_copy(update={"quantisation": "fp8"}), choice(untrained_set))
    try:
        live.check()
        assert events(live, call(seed=3))[0][-1].trace.quantisation == "fp8"
    finally:
        live.retire()
    with pytest.raises(ExpertError, match="cannot be merged into fp8 weights"):
        LiveSet(settings("erase").model_copy(update={"quantisation": "fp8"}), choice(untrained_set))


def test_a_set_that_is_not_the_deployed_one_is_refused(untrained_set):
    with pytest.raises(ExpertError, match="deploy it again"):
        LiveSet(settings("erase"), choice(untrained_set, "0" * 64))


@pytest.mark.parametrize("expert", ["erase", None])
def test_a_damaged_adapter_is_refused_by_who_would_use_it_and_by_nobody_else(expert, untrained_set, tmp_path):
    folder = shutil.copytree(untrained_set, tmp_path / "set")
    (adapter,) = (folder / "experts/erase").glob("*.safetensors")
    adapter.write_bytes(adapter.read_bytes()[:-64])
    with pytest.raises(AdapterError, match="erase"):
        LiveSet(settings(expert), choice(folder))
    if expert is None:
        return
    style = LiveSet(settings("style"), choice(folder))
    style.retire()


def test_a_base_with_other_weights_is_refused_by_an_editor_and_by_a_replica(untrained_set, tmp_path):
    folder = shutil.copytree(untrained_set, tmp_path / "set")
    (weights,) = (folder / "base/transformer").glob("*.safetensors")
    data = weights.read_bytes()
    weights.write_bytes(data[:-4000] + bytes(4000))
    assert load_expert_set(folder).sha256 == load_expert_set(untrained_set).sha256, (
        "it is a hash of what the set states"
    )
    for load in (lambda: load_editor(str(folder), device="cpu"), lambda: LiveSet(settings("erase"), choice(folder))):
        with pytest.raises(ExpertError, match=r"^The base's files have the hash .* restore the files"):
            load()


def test_a_step_that_is_no_number_is_refused(untrained_set, monkeypatch):
    import torch

    from careedit.editing import Engine

    step = Engine.step

    def overflow(engine, states):
        step(engine, states)
        for state in states:
            state.latents = torch.full_like(state.latents, float("inf"))

    monkeypatch.setattr(Engine, "step", overflow)
    threads = threading.active_count()
    with pytest.raises(UnavailableError, match="A step of erase comes out as no number"):
        LiveSet(settings("erase"), choice(untrained_set))
    assert threading.active_count() == threads, "what was begun is ended"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"backend": "import", "model": "judging:Magic"}, "The scorer 'judging:Magic' cannot be imported"),
        ({"backend": "import", "model": "no_such_module:x"}, "The scorer 'no_such_module:x' cannot be imported"),
        ({"backend": "transformers", "model": "/no/such/judge"}, "judge '/no/such/judge'"),
    ],
)
def test_a_judge_that_is_not_there_is_said(config, said):
    with pytest.raises(InputError, match=said):
        load_scorer(ScorerConfig(**config))


def test_an_endpoint_is_a_judge_without_weights():
    config = ScorerConfig(backend="openai", model="qwen", endpoint="http://127.0.0.1:1/v1")
    assert (load_scorer(config).identity.backend, load_scorer(config).identity.model) == ("openai", "qwen")


def test_a_pool_scores_and_is_ill_after_failures_in_a_row():
    async def use():
        pool = ScorerPool(JUDGE, {})
        await pool.check_health()
        scores = await pool.score(REQUESTS)
        pool._scorer = None  # from now on it fails
        for _ in range(MAX_FAILURES):
            with pytest.raises(AttributeError):
                await pool.score(REQUESTS)
        with pytest.raises(UnavailableError, match="failed 3 times in a row"):
            await pool.check_health()
        return scores, await ScorerPool(JUDGE, {}).identity()

    scores, identity = asyncio.run(use())
    assert [round(score.overall, 2) for score in scores] == [0.33, 0.67]
    assert identity == ByPlace.identity


class Pool:
    """A handle whose calls answer in turn."""

    def __init__(self, *answers):
        self.answers, self.asked, self.score = list(answers), 0, self

    def remote(self, requests):
        self.asked += 1
        return self

    def result(self, timeout_s):
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def cancel(self):
        pass


def test_a_remote_judge_is_asked_again_where_a_replica_died():
    scores = ByPlace().score(REQUESTS)
    pool = Pool(ActorDiedError(), scores)
    scorer = RemoteScorer(pool, ScorerConfig(**JUDGE))
    assert scorer.identity.model == "judging:ByPlace"
    assert scorer.score(REQUESTS) == scores and pool.asked == 2
    assert scorer.identity == ByPlace.identity


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([ActorDiedError(), ActorDiedError()], "does not answer"),
        ([ActorDiedError(), TimeoutError()], "does not answer"),
        ([TimeoutError()], "within 60 seconds"),
        ([BackPressureError(1, 1)], "is full"),
        ([RayTaskError("score", "...", RuntimeError("boom")).as_instanceof_cause()], "failed: RuntimeError"),
    ],
)
def test_a_pool_that_is_down_is_one_kind_of_error(answers, said):
    with pytest.raises(ScorerUnavailableError, match=said):
        RemoteScorer(Pool(*answers), ScorerConfig(**JUDGE)).score(REQUESTS)
