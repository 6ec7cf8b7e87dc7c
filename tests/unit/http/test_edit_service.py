import asyncio
import time
from pathlib import Path

import pytest
from PIL import Image

from careedit.errors import InputError
from careedit.records import MAX_SEED, EarlyFilter, EditRequest
from careedit.selection.plan import evaluations
from careedit_deployments.config import Quality, ServeConfig
from careedit_deployments.edits.backend import EditOrder
from careedit_deployments.edits.edit_service import EditService, check_cost, settings
from careedit_deployments.errors import DeadlineError, OverloadedError, TooExpensiveError, UnavailableError
from careedit_deployments.listening import Limits
from careedit_deployments.telemetry.metrics import Metrics, Recording
from fake_backend import FakeBackend, arm_info

PICTURE = Image.new("RGB", (16, 16), (10, 20, 30))
CONFIGS = Path(__file__).parents[3] / "deployments/config"
JUDGE = {"backend": "transformers", "model": "some"}


class Log:
    """Keeps what it is given, in memory."""

    def __init__(self):
        self.edits, self.broken = [], False

    async def add(self, edit):
        if self.broken:
            raise UnavailableError("The database is away; come back later.")
        self.edits.append(edit)


class Watching:
    """Remembers what it is told, and what was kept by then."""

    def __init__(self, log):
        self.log, self.told = log, []

    def ended(self, call, outcome, made):
        self.told.append((outcome, len(made), len(self.log.edits)))


class Stage:
    """An edit service over a fake backend, and all that it tells."""

    def __init__(self, **config):
        self.painter, self.log, self.recording = FakeBackend(), Log(), Recording()
        self.watching = Watching(self.log)
        self.config = ServeConfig(**{"arms": {"tiny": {"expert_set": "tiny"}}, **config})
        self.service = EditService(
            self.config, self.painter, Metrics(self.recording), self.log, observers=[self.watching]
        )

    def edit(self, order=None, **request):
        async def run():
            wanted = order or EditOrder(request=EditRequest(image=PICTURE, instruction="remove it", **request))
            running = await self.service.start(wanted)
            return [event async for event in running.events()]

        return asyncio.run(run())


@pytest.mark.parametrize(("n", "steps", "words"), [(3, 1, "n is 3"), (1, 11, "steps is 11"), (2, 10, "about 20 eval")])
def test_what_costs_too_much_is_refused_with_the_number(n, steps, words):
    with pytest.raises(TooExpensiveError, match=words):
        check_cost(Limits(images=2, steps=10, evaluations=15), n=n, steps=steps, early_filter=None, rows=1)


def test_a_quality_means_what_the_configuration_says_and_what_is_asked_for_comes_first():
    quality = {"high": {"steps": 40, "early_filter": {"candidates": 4}}, "low": {"steps": 2}}
    config = ServeConfig(arms={"tiny": {"expert_set": "tiny"}}, scorer=JUDGE, quality=quality)
    own = EarlyFilter(strategy="restart", candidates=2)
    assert settings(config, "high", None, None) == (40, EarlyFilter(candidates=4))
    assert settings(config, "high", 7, own) == (7, own)
    assert settings(config, "high", None, EarlyFilter(strategy="none")) == (40, None)
    assert settings(config, "low", None, None) == (2, None)
    assert settings(config, "auto", None, None) == (None, None)


def test_a_quality_whose_step_cache_skips_nothing_is_refused():
    with pytest.raises(InputError, match="nothing to skip in 3 steps"):
        Quality(steps=3, step_cache={"interval": 2})


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_higher_quality_of_a_shipped_configuration_takes_more_work(path):
    config = ServeConfig.from_yaml(path)
    found = [settings(config, name, None, None) for name in ("low", "high") if name in config.quality]
    costs = [evaluations(early_filter, n=1, steps=steps, rows=1) for steps, early_filter in found]
    assert len(costs) in (0, 2)
    assert costs == sorted(set(costs))


def test_a_configuration_whose_quality_has_a_filter_needs_a_judge():
    fields = {"arms": {"tiny": {"expert_set": "tiny"}}, "quality": {"high": {"early_filter": {}}}}
    with pytest.raises(InputError, match="no scorer is configured; give `scorer`"):
        ServeConfig(**fields)
    assert ServeConfig(**fields, scorer=JUDGE).quality["high"].early_filter == EarlyFilter()


def test_a_seed_is_drawn_once_and_steps_are_settled():
    stage = Stage()
    for _ in range(2):
        stage.edit()
    seeds = {call.request.seed for call in stage.painter.calls}
    assert len(seeds) == 2
    assert None not in seeds
    assert {call.request.steps for call in stage.painter.calls} == {4}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"guidance": 3.0}, "takes none"),
        ({"early_filter": EarlyFilter()}, "needs a judge"),
        ({"seed": MAX_SEED, "n": 2}, "no room"),
        ({"expert": "nobody"}, "does not exist"),
    ],
)
def test_what_the_arm_cannot_do_is_refused_before_it_is_asked(request_, words):
    stage = Stage()
    with pytest.raises(InputError, match=words):
        stage.edit(**request_)
    assert stage.painter.calls == []


def test_an_arm_that_takes_guidance_gets_it():
    stage = Stage()
    stage.painter.arms = {"tiny": arm_info(takes_guidance=True)}
    stage.edit(guidance=3.0)
    assert stage.painter.calls[0].request.guidance == 3.0


def test_an_expert_that_was_fixed_needs_no_router(monkeypatch):
    stage = Stage()

    async def route(*_, **__):
        raise AssertionError("the router was asked")

    monkeypatch.setattr(stage.painter, "route", route)
    stage.edit(expert={"erase": 0.5, "style": 0.5})
    assert stage.painter.calls[0].decision.router == "fixed"


def test_a_finished_edit_is_counted_kept_and_told_in_this_order():
    stage = Stage()
    order = EditOrder(
        request=EditRequest(image=PICTURE, instruction="remove it", n=2), user="anna", owner="key_1", request_id="r"
    )
    events = stage.edit(order)
    assert [event.kind for event in events].count("made") == 2
    (kept,) = stage.log.edits
    assert (kept.owner, kept.user, kept.outcome, kept.request_id, len(kept.traces)) == ("key_1", "anna", "made", "r", 2)
    assert stage.recording.total("careedit_edits", outcome="made", expert="erase") == 1
    assert stage.recording.total("careedit_images") == 2
    assert stage.watching.told == [("made", 2, 1)]


def test_an_order_of_nobody_is_nobodys_and_a_trace_is_handed_on():
    stage = Stage()
    stage.edit()
    assert (stage.log.edits[0].owner, stage.painter.calls[0].trace_headers) == ("anonymous", {})
    parent = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    stage.edit(EditOrder(request=EditRequest(image=PICTURE, instruction="remove it"), trace_headers=parent))
    assert stage.painter.calls[1].trace_headers == parent


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UnavailableError("Gone."), "failed"),
        (OverloadedError("Full."), "overloaded"),
        (InputError("Odd."), "refused"),
        (ZeroDivisionError("secret"), "failed"),
    ],
)
def test_an_edit_that_fails_is_counted_kept_and_told_by_its_reason(error, outcome):
    stage = Stage()
    stage.painter.fails = error
    with pytest.raises(type(error)):
        stage.edit()
    assert stage.recording.total("careedit_edits", outcome=outcome) == 1
    assert stage.log.edits[0].outcome == outcome
    assert "secret" not in stage.log.edits[0].error
    assert stage.watching.told == [(outcome, 0, 1)]


@pytest.mark.parametrize(
    ("fields", "model", "evidence"),
    [({}, None, True), ({"n": 4, "steps": 20}, None, False), ({}, "tiny", False)],
)
def test_what_runs_out_of_time_speaks_against_the_arm_unless_it_was_hopeless_or_named_the_arm(fields, model, evidence):
    stage = Stage(limits={"deadline_s": 0.02})
    stage.painter.pause = 10.0
    request = EditRequest(image=PICTURE, instruction="remove it", **fields)
    with pytest.raises(DeadlineError):
        stage.edit(EditOrder(request=request, model=model))
    assert stage.log.edits[0].evidence == evidence


def test_a_deadline_ends_an_edit():
    stage = Stage(limits={"deadline_s": 0.05})
    stage.painter.pause = 10.0
    started = time.monotonic()
    with pytest.raises(DeadlineError, match="deadline"):
        stage.edit()
    assert time.monotonic() - started < 5
    assert stage.painter.closed == 1
    assert stage.recording.total("careedit_edits", outcome="expired") == 1
    assert stage.log.edits[0].outcome == "expired"


def test_closing_the_events_stops_the_edit_and_writes_it_down():
    stage = Stage()

    async def run():
        running = await stage.service.start(
            EditOrder(request=EditRequest(image=PICTURE, instruction="remove it"), progress=True)
        )
        events = running.events()
        await anext(events)
        await events.aclose()

    asyncio.run(run())
    assert (stage.painter.steps, stage.painter.closed) == (1, 1)
    assert [edit.outcome for edit in stage.log.edits] == ["cancelled"]


def test_a_store_that_is_away_costs_the_note_and_not_the_picture():
    stage = Stage()
    stage.log.broken = True
    assert stage.edit()[-1].kind == "made"
    assert stage.watching.told == [("made", 1, 0)]
