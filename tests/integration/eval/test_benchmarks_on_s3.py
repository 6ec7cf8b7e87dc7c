"""A benchmark and a finished run in an S3 bucket, served by moto on this machine's loopback interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from careedit_eval.alignment import load_pictures
from careedit_eval.benchmarks import load_benchmark
from careedit_eval.errors import BenchmarkError
from careedit_eval.report import analyse, write_analysis
from careedit_eval.suite import Arm, Part
from careedit_eval.viewer import Library, ViewedRun
from careedit_eval.viewer.library import sample_document
from careedit_tiny.evaluation.humanedit import TinyHumanEdit, TinyHumanEditConfig
from scripted_eval import finished, suite


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> TinyHumanEdit:
    return TinyHumanEdit(TinyHumanEditConfig(path=str(tmp_path_factory.mktemp("tiny")), rows=12))


@pytest.fixture(scope="module")
def bucket(drawn: TinyHumanEdit) -> Iterator[str]:
    """HumanEdit's layout in a bucket; found as every S3 client finds one, by the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        s3fs.S3FileSystem.clear_instance_cache()
        assert len(drawn) == 12
        files = s3fs.S3FileSystem()
        files.mkdir("benchmarks")
        files.put(str(drawn.file), "benchmarks/humanedit/data/train-00000-of-00001.parquet")
        yield "s3://benchmarks/humanedit"
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_rows_in_a_bucket_are_the_rows_on_disk(bucket: str, drawn: TinyHumanEdit) -> None:
    there = list(load_benchmark("humanedit", path=bucket, masks="needed").rows())
    here = list(load_benchmark("humanedit", path=str(drawn.file), masks="needed").rows())
    assert [sample.content_sha256 for sample in there] == [sample.content_sha256 for sample in here]
    assert load_pictures(there[3]).target == load_pictures(here[3]).target


def test_a_bucket_without_the_data_set_is_a_sentence(bucket: str) -> None:
    with pytest.raises(BenchmarkError, match=r"s3://benchmarks/nothing"):
        load_benchmark("humanedit", path="s3://benchmarks/nothing").rows()


def test_rows_that_were_replaced_after_they_were_listed_are_not_read(bucket: str, tmp_path: Path) -> None:
    files = s3fs.S3FileSystem()
    place = "benchmarks/other/rows.parquet"
    for seed in (1, 2):
        rows = TinyHumanEdit(TinyHumanEditConfig(path=str(tmp_path), rows=6, seed=seed))
        assert len(rows) == 6
        files.put(str(rows.file), place)
        if seed == 1:
            sample = next(load_benchmark("humanedit", path=f"s3://{place}").rows())
            old = sample.source.read()
    from careedit_eval.row_groups import read_column

    read_column.cache_clear()
    with pytest.raises(BenchmarkError, match=r"has changed|cannot be read"):
        assert sample.source.read() == old


def test_the_viewer_shows_a_run_in_a_bucket_as_on_disk(bucket: str, tmp_path: Path) -> None:
    wanted = suite(Arm(name="a", kind="identity"), Arm(name="b", kind="truth")).model_copy(
        update={"benchmarks": (Part(name="humanedit", options={"path": bucket, "limit": 4}),)}
    )
    run = finished(wanted, tmp_path / "evals", "20261101-one")
    write_analysis(run, analyse(run))
    s3fs.S3FileSystem().put(str(tmp_path / "evals"), "benchmarks/evals", recursive=True)
    there, here = ViewedRun("s3://benchmarks/evals/runs/20261101-one"), ViewedRun(str(run.folder))
    line = run.table.edits[0]
    where = (line.benchmark, line.sample_id)
    assert sample_document(there, *where, 0) == sample_document(here, *where, 0)
    assert there.edited(line.benchmark, "a", line.sample_id, 0) == here.edited(line.benchmark, "a", line.sample_id, 0)
    assert there.picture(*where, "target") == here.picture(*where, "target")
    assert there.warnings() == []
    (night,) = Library([there]).history()
    assert night == Library([here]).history()[0]
