"""What `careedit bench eval` measures, part by part; tests/cluster runs the command."""

from pathlib import Path

import pytest

from careedit.encoders import load_encoder
from careedit_eval.bench import measuring
from careedit_eval.bench.growth import grow
from careedit_eval.errors import RunError
from careedit_eval.metrics import backbones
from careedit_tiny.evaluation.humanedit import TinyHumanEditConfig, write_rows


def test_a_run_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    config = TinyHumanEditConfig(path=str(tmp_path), rows=12)
    write_rows(tmp_path / "rows.parquet", config)
    heavy = bytearray(400_000_000)  # what this process holds is not the run's
    first, second = (grow(tmp_path / "rows.parquet", tmp_path / "run", 12, name) for name in ("a", "b"))
    assert (first.rows, first.edited, second.edited) == (12, 12, 0)
    assert 0 < second.peak_bytes < 350_000_000 < len(heavy)


def test_two_ways_that_tell_two_things_are_no_measurement() -> None:
    with pytest.raises(RunError, match="one of them is wrong"):
        measuring._check({"l1": 0.5}, {"l1": 0.4})


def test_the_script_embeds_one_picture_at_a_time_as_the_metrics_do_many(tmp_path: Path) -> None:
    from careedit_eval.benchmarks import load_benchmark

    samples = list(load_benchmark("tiny_humanedit", path=str(tmp_path), rows=6).rows())
    found = measuring.metric_speedup(samples, sets=2, repeats=1)
    assert found.ratio > 0 and len(found.laps) == 1
    encoder = load_encoder(str(backbones.packaged("tiny_clip")), device="cpu", cache_entries=0)
    means = measuring._script(encoder, samples, [[sample.source.read() for sample in samples]])
    assert set(means) == {"l1", "l2", "clip_i", "clip_t", "clip_t_oracle"} and means["clip_i"] < 1
