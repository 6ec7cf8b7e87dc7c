import inspect
import re
import typing
from itertools import pairwise
from pathlib import Path

import pytest

from careedit.records import EditTrace, FilterCandidate, FilterLook, FilterTrace, RoutingDecision
from careedit_deployments.telemetry import catalogue
from careedit_deployments.telemetry.catalogue import METRICS, SERVE_LATENCY_BUCKETS_MS, Stage
from careedit_deployments.telemetry.metrics import Metrics, Recording, expert_of, no_metrics

ONE = RoutingDecision(weights={"erase": 1.0}, entropy=0.3, router="rules", reason="It says remove.")
TWO = RoutingDecision(weights={"erase": 0.5, "base": 0.5}, router="rules", reason="Either.")


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture
def metrics(recording: Recording) -> Metrics:
    return Metrics(recording, cost_per_gpu_hour=3.6)


def make_trace(**changes: object) -> EditTrace:
    fields = {
        "expert_set": "tiny",
        "expert_set_sha256": "0",
        "instruction": "remove it",
        "prompt": "remove it",
        "image_sha256": "0",
        "routing": ONE,
        "application": "merged",
        "seed": 1,
        "steps": 8,
        "guidance": None,
        "panel": (64, 64),
        "nfe": 20,
        "batch": ({"steps": 8, "weights": {"erase": 1.0}},),
        "slot": 0,
        "device": "cpu",
        "dtype": "float32",
        "runtime": "torch",
        "seconds": {},
    }
    return EditTrace(**{**fields, **changes})


def call(metrics: Metrics, name: str) -> None:
    """Call a recording method with arguments of its annotated types."""
    made = {float: 1.0, int: 1, str: "a", RoutingDecision: ONE, EditTrace: make_trace(), bool: True}
    hints = typing.get_type_hints(getattr(metrics, name))
    arguments = {}
    for parameter in inspect.signature(getattr(metrics, name)).parameters:
        hint = hints[parameter]
        if typing.get_origin(hint) is typing.Literal:
            arguments[parameter] = typing.get_args(hint)[0]
        elif hint not in made:
            arguments[parameter] = type("AnyScore", (), {"overall": 0.5})()
        else:
            arguments[parameter] = made[hint]
    getattr(metrics, name)(**arguments)


def test_every_metric_of_the_catalogue_is_recorded_by_some_method_with_its_own_labels(recording: Recording) -> None:
    metrics = Metrics(recording, cost_per_gpu_hour=1)
    for name in [name for name in vars(Metrics) if not name.startswith("_")]:
        call(metrics, name)
    metrics.image_made("a", make_trace(degradations=("router: low confidence",)))
    assert {name for name, values in recording.values.items() if values} == {info.name for info in METRICS}


def test_every_metric_of_the_catalogue_is_recorded_somewhere_in_the_platform(recording: Recording) -> None:
    folder = Path(inspect.getfile(catalogue)).parents[1]
    code = "\n".join(path.read_text("utf-8") for path in folder.rglob("*.py") if path.name != "metrics.py")
    metrics = Metrics(recording, cost_per_gpu_hour=1)
    for name in [name for name in vars(Metrics) if not name.startswith("_")]:
        if re.search(rf"metrics\.{name}\(", code):
            call(metrics, name)
    metrics.image_made("a", make_trace(degradations=("router: low confidence",)))
    assert {name for name, values in recording.values.items() if values} == {info.name for info in METRICS}


def test_names_are_unique_and_follow_the_rules_of_prometheus() -> None:
    names = [info.name for info in METRICS]
    assert len(set(names)) == len(names)
    for info in METRICS:
        assert re.fullmatch(r"careedit_[a-z_]+[a-z]", info.name) and not info.name.endswith("_total")
        assert info.help.endswith(".")
        assert (info.kind == "histogram") == bool(info.buckets)
        assert list(info.buckets) == sorted(set(info.buckets)) and all(bound > 0 for bound in info.buckets)
        assert not {"deployment", "replica", "application", "route"} & set(info.labels), "reserved by Ray Serve"


def test_labels_are_bounded() -> None:
    assert {label for info in METRICS for label in info.labels} == {
        *("arm", "expert", "outcome", "stage", "reason", "router", "verdict", "change", "event", "check", "kind"),
    }


def test_buckets_resolve_an_edit_between_ten_seconds_and_a_minute() -> None:
    inside = [bound for bound in catalogue.SECONDS if 10 <= bound <= 60]
    assert all(later / earlier <= 1.5 for earlier, later in pairwise(inside))
    assert [float(bound) / 1000 for bound in SERVE_LATENCY_BUCKETS_MS.split(",")] == list(catalogue.SECONDS)


@pytest.mark.parametrize(
    ("kind", "name"), [("counter", "ray_careedit_edits_total"), ("histogram", "ray_careedit_edit_seconds")]
)
def test_a_query_knows_the_name_that_prometheus_sees(kind: str, name: str) -> None:
    assert name in {info.prometheus for info in METRICS if info.kind == kind}


def test_an_edit_counts_once_and_its_images_each(metrics: Metrics, recording: Recording) -> None:
    metrics.edit_ended("a", "erase", "made", 2.5)
    metrics.image_made("a", make_trace())
    metrics.image_made("a", make_trace())
    assert recording.total("careedit_edits", arm="a", expert="erase", outcome="made") == 1
    assert recording.total("careedit_images", arm="a", expert="erase") == 2
    assert recording.total("careedit_evaluations") == 40
    assert recording.values["careedit_seeds_tried"] == {(("arm", "a"),): [1.0, 1.0]}


def test_the_seeds_of_an_early_filter_are_counted(metrics: Metrics, recording: Recording) -> None:
    candidates = tuple(FilterCandidate(seed=seed, steps=2, preview_sha256="0") for seed in range(4))
    looked = FilterTrace(
        strategy="halving",
        preview_steps=2,
        candidates=candidates,
        looks=(FilterLook(steps=2, alive=(0, 1, 2, 3)),),
        chosen=0,
        nfe=8,
        judge={},
        judge_seconds=0.1,
    )
    metrics.image_made(
        "a", make_trace(filter=looked, seconds={"queue": 1.0, "filter": 0.5, "denoise": 2.0, "finish": 0.2})
    )
    assert recording.total("careedit_seeds_tried") == 4
    stages = {dict(key)["stage"]: values for key, values in recording.values["careedit_stage_seconds"].items()}
    assert stages == {"queue": [1.0], "step": [2.4], "decode": [0.2], "judge": [0.1]}


def test_the_stages_of_an_image_are_those_of_its_trace(metrics: Metrics, recording: Recording) -> None:
    metrics.image_made("a", make_trace(seconds={"queue": 0.0, "prepare": 0.3, "denoise": 2.0, "finish": 0.2}))
    assert recording.total("careedit_stage_seconds", stage="encode", expert="erase") == 0.3
    assert recording.total("careedit_stage_seconds") == 2.5


def test_what_a_clients_picture_lost_is_no_degradation_of_the_platform(metrics: Metrics, recording: Recording) -> None:
    metrics.image_made("a", make_trace(degradations=("image: transparent pixels were composited over white",)))
    assert "careedit_degradations" not in recording.values


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("router: low confidence, base used", "router"),
        ("degraded: filter, the judge took too long, so seed 3 went on", "filter"),
        ("instruction: longer than the base reads, its end was cut", "instruction"),
        ("user-4711 wrote a thing", "other"),
    ],
)
def test_a_degradation_is_counted_under_a_listed_reason(
    metrics: Metrics, recording: Recording, line: str, reason: str
) -> None:
    metrics.image_made("a", make_trace(degradations=(line,)))
    assert recording.values["careedit_degradations"] == {(("arm", "a"), ("reason", reason)): [1.0]}


def test_cost_is_device_time_times_its_price(metrics: Metrics, recording: Recording) -> None:
    metrics.stepped("a", "erase", rows=4, seconds=2.0)
    assert recording.total("careedit_device_seconds") == 2
    assert recording.total("careedit_cost") == pytest.approx(0.002)
    assert recording.total("careedit_steps") == 4


def test_nothing_is_added_to_a_counter_by_zero(recording: Recording) -> None:
    Metrics(recording).stepped("a", "erase", rows=1, seconds=1.0, late=0)
    assert not recording.values["careedit_cost"] and not recording.values["careedit_late_steps"]


def test_mixtures_have_one_label(metrics: Metrics) -> None:
    assert (expert_of(ONE), expert_of(TWO)) == ("erase", "mixed")


def test_routing_records_entropy_feasibility_and_its_stage(metrics: Metrics, recording: Recording) -> None:
    metrics.routed("a", ONE, 0.004)
    assert recording.total("careedit_routing_entropy", router="rules") == 0.3
    assert recording.total("careedit_stage_seconds", stage="route", expert="erase") == 0.004


def test_the_stages_are_those_of_the_issue() -> None:
    assert typing.get_args(Stage) == ("queue", "route", "encode", "step", "decode", "judge")


def test_a_recording_takes_no_label_that_ray_would_refuse(recording: Recording) -> None:
    with pytest.raises(ValueError, match="takes the labels"):
        recording(catalogue.EDITS)(1, {"arm": "a"})


def test_without_a_reader_nothing_happens() -> None:
    Metrics(no_metrics).edit_ended("a", "erase", "made", 1)
