"""A trace through autoscaled pools, replayed as the settings of a serving configuration say."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from careedit_deployments.bench.trace import TraceRow
from careedit_deployments.config import ScorerConfig, ServeConfig
from careedit_deployments.planning.command import app
from careedit_deployments.planning.model import Filter, load_profiles
from careedit_deployments.planning.replay import arrivals_of, judges_of, replay
from careedit_deployments.planning.runs import ALL

CONFIGS = Path(__file__).parents[3] / "deployments/config"
FLUX = load_profiles()["dit20b-h200"]


def row(at: float, expert: str | None = "erase", steps: int = 28, n: int = 1) -> TraceRow:
    return TraceRow(arrival_s=at, size="1024x1024", steps=steps, n=n, slo_ms=30_000, expert=expert)


def burst(edits: int, gap: float) -> list[TraceRow]:
    return [row(i * gap) for i in range(edits)]


def configured(judges: int = 0, queue: int = 1000, **scaling: float) -> ServeConfig:
    """Replicas that hold one edit each, and some judges."""
    scorer = {"backend": "transformers", "model": "judge", "deployment": {"scaling": {"max_replicas": judges or 1}}}
    return ServeConfig(
        arms={"main": {"expert_set": "tiny"}},
        expert={"max_ongoing_requests": 1, "max_queued_requests": queue, "scaling": {"max_replicas": 8, **scaling}},
        scorer=scorer if judges else {},
    )


def test_the_judges_are_the_scorer_pool_of_the_configuration() -> None:
    config = ServeConfig.from_yaml(CONFIGS / "flux-fill.yaml")
    assert judges_of(config) >= 1
    assert judges_of(config.model_copy(update={"scorer": ScorerConfig(), "quality": {}})) == 0


def test_more_replicas_answer_a_burst_sooner_and_few_turn_edits_away() -> None:
    few, many = (
        replay(burst(200, 2.0), FLUX, "merged", configured(queue=4, max_replicas=most), usd_per_hour=1)
        for most in (1, 8)
    )
    assert few.refused > many.refused
    assert few.in_time < many.in_time and few.edits + few.refused == 200


def test_one_expert_s_burst_scales_its_own_pool_only() -> None:
    quiet = [row(60.0 * i + 0.5, "style") for i in range(3)]
    trace = sorted([*burst(90, 2.0), *quiet], key=lambda one: one.arrival_s)
    settings = configured(max_replicas=6, upscale_delay_s=0, downscale_delay_s=600)
    both = replay(trace, FLUX, "merged", settings, usd_per_hour=1)
    alone = replay(burst(90, 2.0), FLUX, "merged", settings, usd_per_hour=1)
    assert both.gpu_hours < alone.gpu_hours * 1.6


def test_the_early_filter_is_used_where_there_are_judges() -> None:
    trace = burst(5, 100.0)
    off = replay(trace, FLUX, "merged", configured(), filter_=Filter(), usd_per_hour=1)
    on = replay(trace, FLUX, "merged", configured(judges=2), filter_=Filter(), usd_per_hour=1)
    assert off.p50 == pytest.approx(7.0, abs=0.1) and on.p50 > off.p50 + 4


def test_the_command_replays_a_trace_on_both_layouts(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    rows = [row(3.0 * i, "erase" if i % 2 else "style").model_dump_json() for i in range(40)]
    path.write_text("\n".join(['{"careedit_trace": 1}', *rows]) + "\n", "utf-8")
    arguments = ["--trace", str(path), "--config", str(CONFIGS / "flux-fill.yaml"), "--json"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    rows = json.loads(answer.stdout)["replays"]
    assert [row["layout"] for row in rows] == ["merged", "shared"]
    assert all(row["edits"] + row["refused"] == 40 and row["gpu_hours"] > 0 for row in rows)


def test_rows_without_an_expert_get_them_in_turn_and_the_long_tail_shares_a_pool() -> None:
    trace = [row(float(i), None) for i in range(4)]
    arrivals = arrivals_of(trace, FLUX, "merged", experts=("erase", "style", "identity"), long_tail=("identity",))
    assert [edit.pool for _, edit in arrivals] == ["erase", "style", ALL, "erase"]
    assert [gap for gap, _ in arrivals] == [0.0, 1.0, 1.0, 1.0]
    own, _, shared, _ = (edit.work[0] for _, edit in arrivals)
    assert shared - own == pytest.approx(28 * FLUX.step_s * (FLUX.shared_ratio - 1))


def test_the_images_of_an_edit_step_together_and_are_decoded_one_by_one() -> None:
    (_, one), (_, four) = arrivals_of([row(0.0), row(0.0, n=4)], FLUX, "merged")
    more = 28 * FLUX.step_s * (FLUX.slowdown(4) - 1) + 3 * FLUX.decode_s
    assert four.work[0] - one.work[0] == pytest.approx(more)
