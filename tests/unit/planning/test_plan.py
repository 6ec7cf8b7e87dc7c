"""`careedit plan`: what it counts, what it says, and what it refuses."""

import datetime
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from careedit.errors import InputError
from careedit_deployments.planning.command import app
from careedit_deployments.planning.model import Filter, Workload, load_prices, load_profiles
from careedit_deployments.planning.plan import BREAK_EVEN_RATES, Goal, Sizing, break_even, size
from careedit_deployments.planning.plot import write_plot

PROFILES = load_profiles()
FLUX = PROFILES["dit20b-h200"]
QUICK = ["--edits", "100", "--no-break-even"]


def sized(
    rate: float, kind: str = "merged", filter_: Filter | None = None, slo: float = 16.0, edits: int = 600
) -> Sizing:
    workload = Workload(rate=rate, filter=filter_)
    return size(workload, FLUX, kind, Goal(slo_p95=slo, usd_per_hour=3.6, edits=edits))


def test_every_price_has_a_date_a_place_and_a_source_and_every_profile_says_what_is_assumed() -> None:
    prices = load_prices()
    assert len(prices) >= 3
    for price in prices.values():
        assert datetime.date(2026, 1, 1) <= datetime.date.fromisoformat(price.date)
        assert re.search(r"\w+\.\w{2,}/", price.source) and price.region
    for profile in PROFILES.values():
        assert profile.source.startswith(("measured", "published", "counted")) and "ssumed" in profile.source
        assert profile.price is None or profile.price in prices


def test_twice_the_edits_take_at_most_twice_the_replicas_and_cost_no_more_each() -> None:
    once, twice = sized(5.0), sized(10.0)
    assert once.replicas < twice.replicas <= 2 * once.replicas
    assert twice.usd_per_1000 <= once.usd_per_1000


def test_the_cost_is_that_of_the_gpus_and_no_replica_works_more_than_it_can() -> None:
    found = sized(5.0)
    assert found.usd_per_1000 == pytest.approx(found.gpus * 1000 / 5 * 3.6 / 3600)
    alone = FLUX.overhead_s + FLUX.encode_s + 28 * FLUX.step_s + FLUX.decode_s
    assert found.replicas * 0.95 >= 5.0 * alone
    assert found.p50 >= alone * 0.999 and found.p95 <= 16.0


def test_merged_experts_need_a_pool_each_and_shared_ones_longer_steps() -> None:
    few, many = (sized(0.05, kind) for kind in ("merged", "shared"))
    assert few.replicas >= 5 > many.replicas
    assert many.p50 == pytest.approx(few.p50 + 28 * FLUX.step_s * 0.25, abs=0.5)


def test_shared_experts_are_cheaper_for_little_load_and_merged_ones_for_much() -> None:
    rate = break_even(Workload(rate=1.0), FLUX, Goal(slo_p95=16.0, usd_per_hour=1.0, edits=300))
    assert rate in BREAK_EVEN_RATES and rate > BREAK_EVEN_RATES[0]


def test_the_early_filter_brings_judges_and_more_replicas() -> None:
    off, on = sized(2.0, slo=30.0), sized(2.0, filter_=Filter(), slo=30.0)
    assert off.judges == 0 < on.judges
    assert on.replicas > 1.5 * off.replicas and on.gpus == on.replicas + on.judges * FLUX.judge_gpus


def test_an_objective_below_an_edits_own_time_is_said_to_be_out_of_reach() -> None:
    found = sized(1.0, slo=5.0)
    assert not found.feasible and found.replicas == 0
    assert found.why == "an edit alone takes 7.0 s (95th percentile)"


def test_the_command_prints_a_row_per_rate_layout_and_filter() -> None:
    answer = CliRunner().invoke(app, ["--rate", "0.5,2", "--slo-p95", "30", "--json", *QUICK])
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    rows = [(row["rate"], row["layout"], row["filtered"]) for row in told["rows"]]
    assert len(rows) == len(set(rows)) == 8
    assert told["merged_from_rate"] == "unknown" and told["usd_per_hour"] == 4.45
    assert all(row["p95"] <= 30 for row in told["rows"] if row["feasible"])


def test_own_times_and_prices_come_first() -> None:
    arguments = ["--rate", "1", "--step-seconds", "0.1", "--usd-per-hour", "2", "--json", *QUICK]
    told = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert (told["profile"]["step_s"], told["usd_per_hour"], told["price"]) == (0.1, 2.0, "--usd-per-hour")


@pytest.mark.parametrize("name", ["plan.png", "plan.html"])
def test_the_plan_is_drawn(tmp_path: Path, name: str) -> None:
    rows = [sized(rate, edits=200) for rate in (0.5, 2.0)] + [sized(1.0, slo=5.0)]
    write_plot(tmp_path / name, rows, "a <caption>")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    if name.endswith(".png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300 and len(picture.convert("RGB").getcolors(2**24) or []) > 50
    else:
        page = (tmp_path / name).read_text("utf-8")
        assert page.count("<tr>") == 4 and "a &lt;caption&gt;" in page and "an edit alone takes" in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rate", "fast"], "is not a list of rates"),
        (["--rate", "0"], "is not a list of rates"),
        (["--profile", "abacus"], "The profile 'abacus' does not exist; choose one of tiny-cpu"),
        (["--profile", "tiny-cpu"], "has no price"),
        (["--price", "free"], "The price 'free' does not exist"),
        (["--usd-per-hour", "0"], "give a price above 0"),
        (["--slo-p95", "-1"], "give seconds above 0"),
        (["--plot", "plan.jpg"], "an unknown suffix"),
        (["--plot", "nowhere/plan.png"], "does not exist"),
    ],
)
def test_what_cannot_be_planned_is_answered_with_a_sentence(arguments: list[str], sentence: str) -> None:
    answer = CliRunner().invoke(app, [*arguments, *QUICK])
    assert isinstance(answer.exception, InputError)
    assert sentence in str(answer.exception)
