"""A trace through autoscaled pools: read strictly, and replayed as the settings of a serving configuration say."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from careedit.errors import InputError
from careedit_deployments.config import ScorerConfig, ServeConfig
from careedit_deployments.planning.command import app
from careedit_deployments.planning.model import Filter, Layout, Scaling, load_profiles
from careedit_deployments.planning.replay import Arrival, read_trace, replay, settings_of

CONFIGS = Path(__file__).parents[3] / "deployments/config"
FLUX = load_profiles()["dit20b-h200"]


def burst(edits: int, gap: float, expert: str = "erase") -> list[Arrival]:
    return [Arrival(at=i * gap, expert=expert, steps=28) for i in range(edits)]


def write(folder: Path, *lines: str) -> Path:
    path = folder / "trace.csv"
    path.write_text("\n".join(["at,expert,steps", *lines]) + "\n", "utf-8")
    return path


def test_a_trace_is_read_line_by_line(tmp_path: Path) -> None:
    found = read_trace(write(tmp_path, "0,erase,28", "0.5,style,8"))
    assert found == [Arrival(at=0, expert="erase", steps=28), Arrival(at=0.5, expert="style", steps=8)]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["0,erase"], "Line 2 of the trace"),
        (["0,erase,many"], "Line 2 of the trace"),
        (["5,erase,28", "4,erase,28"], "Line 3 of .* goes back in time"),
        (["0,erase,0"], "has no 1 to 200 steps"),
        (["nan,erase,3"], "goes back in time"),
        ([], "holds no arrivals"),
    ],
)
def test_a_broken_trace_is_answered_with_a_sentence(tmp_path: Path, lines: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_trace(write(tmp_path, *lines))


def test_a_file_that_is_no_trace_is_answered_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("time,what\n", "utf-8")
    with pytest.raises(InputError, match="does not begin with at,expert,steps"):
        read_trace(tmp_path / "x.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(tmp_path / "none.csv")


def test_settings_are_those_of_the_serving_configuration() -> None:
    config = ServeConfig.from_yaml(CONFIGS / "flux-fill.yaml")
    layout, scaling, judges = settings_of(config)
    assert layout.held == config.expert.max_ongoing_requests and layout.queue == config.expert.max_queued_requests
    assert scaling.max_replicas == config.expert.scaling.max_replicas
    assert scaling.target_step_seconds == config.expert.scaling.target_step_seconds
    assert judges >= 1 and settings_of(config.model_copy(update={"scorer": ScorerConfig(), "quality": {}}))[2] == 0


def test_more_replicas_answer_a_burst_sooner_and_few_turn_edits_away() -> None:
    few, many = (
        replay(burst(200, 2.0), FLUX, Layout(queue=4), Scaling(max_replicas=most), slo=30, usd_per_hour=1)
        for most in (1, 8)
    )
    assert few.refused > many.refused
    assert few.within < many.within and few.edits + few.refused == 200


def test_one_expert_s_burst_scales_its_own_pool_only() -> None:
    quiet = [Arrival(at=one.at + 0.5, expert="style", steps=28) for one in burst(3, 60.0)]
    trace = sorted([*burst(90, 2.0), *quiet], key=lambda one: one.at)
    settings = Scaling(max_replicas=6, upscale_delay_s=0, downscale_delay_s=600)
    both = replay(trace, FLUX, Layout(), settings, slo=30, usd_per_hour=1)
    alone = replay(burst(90, 2.0), FLUX, Layout(), settings, slo=30, usd_per_hour=1)
    assert both.gpu_hours < alone.gpu_hours * 1.6


def test_the_early_filter_is_used_where_there_are_judges() -> None:
    trace = burst(5, 100.0)
    off = replay(trace, FLUX, Layout(), Scaling(), filter_=Filter(), slo=30, usd_per_hour=1)
    on = replay(trace, FLUX, Layout(), Scaling(), filter_=Filter(), judges=2, slo=30, usd_per_hour=1)
    assert off.p50 == pytest.approx(7.0, abs=0.1) and on.p50 > off.p50 + 4


def test_the_command_replays_a_trace_on_both_layouts(tmp_path: Path) -> None:
    path = write(tmp_path, *(f"{3 * i},{'erase' if i % 2 else 'style'},28" for i in range(40)))
    arguments = ["--trace", str(path), "--config", str(CONFIGS / "flux-fill.yaml"), "--json"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    rows = json.loads(answer.stdout)["replays"]
    assert [row["layout"] for row in rows] == ["merged", "shared"]
    assert all(row["edits"] + row["refused"] == 40 and row["gpu_hours"] > 0 for row in rows)
