"""A disk that takes no more, a shard that decays, a store that was tampered with: a sentence or an error row, never a loss."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyarrow import parquet

from careedit.errors import InputError
from careedit_eval.errors import RunError
from careedit_eval.pipeline import LocalRunner, Store, evaluate
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.results import EDITS_FILE, SCORES_FILE
from careedit_eval.row_groups import read_column
from careedit_eval.suite import Arm, Part, Suite
from careedit_tiny.evaluation.humanedit import TinyHumanEditConfig, write_rows
from scripted_eval import arm, suite


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_stops_the_run_with_a_sentence_and_costs_nothing_that_was_done(tmp_path: Path) -> None:
    plan = make_plan(suite(arm("a"), n=40, workers={"edit_batch": 1, "score_batch": 32}))
    store = Store(tmp_path / "full/store")
    words = r"cannot be written \(File too large\); what is done is kept. Free some space"
    # An edit's row fits, a batch of scores does not.
    with largest_file(2000), pytest.raises(RunError, match=words):
        evaluate(plan, store, LocalRunner())
    assert (len(store.edits()), len(store.scores())) == (40, 0)
    assert not list(store.folder.rglob(".*.tmp")), "what could not be written whole is not there"
    for name in ("full", "calm"):
        evaluate(plan, Store(tmp_path / name / "store"), LocalRunner()).table.write(tmp_path / name)
    for file in (EDITS_FILE, SCORES_FILE):
        assert (tmp_path / "full" / file).read_bytes() == (tmp_path / "calm" / file).read_bytes()


def test_a_shard_that_decayed_costs_its_rows_and_no_others(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("careedit_tiny.evaluation.humanedit.GROUP", 12)
    file = tmp_path / "rows.parquet"
    write_rows(file, TinyHumanEditConfig(path=str(tmp_path), rows=24))
    wanted = Suite(
        name="decayed",
        benchmarks=(Part(name="humanedit", options={"path": str(file)}),),
        sets=(Arm(name="identity", kind="identity"),),
        rows=(),
        metrics=(Part(name="l1"),),
        primary="l1",
    )
    plan = make_plan(wanted)
    data = bytearray(file.read_bytes())
    groups = parquet.ParquetFile(file).metadata
    names = [groups.row_group(1).column(i).path_in_schema for i in range(groups.num_columns)]
    chunk = groups.row_group(1).column(names.index("INPUT_IMG.bytes"))
    where = (chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size // 2
    data[where : where + 40] = bytes(40)
    file.write_bytes(data)
    read_column.cache_clear()
    found = evaluate(plan, Store(tmp_path / "store"), LocalRunner())
    bad = [line for line in found.table.edits if line.error is not None]
    assert 1 <= len(bad) <= 12 and {line.sample_id for line in bad} <= {
        sample.id for sample in plan.benchmarks[0].samples[12:]
    }
    assert all("has changed since" in str(line.error) or "get it again" in str(line.error) for line in bad)
    column = found.table.column(plan.benchmarks[0].name, "identity", "l1")
    assert len(column) == 24 and sum(line.value is not None for line in column.values()) == 24 - len(bad)


def test_lines_of_the_store_that_cannot_be_read_are_made_again_and_counted(tmp_path: Path) -> None:
    first = evaluate(make_plan(suite(arm("a"))), Store(tmp_path), LocalRunner())
    for folder in ("edits", "scores"):
        file = next((tmp_path / folder).iterdir())
        lines = file.read_bytes().splitlines()
        file.write_bytes(b"\n".join([b"\xff\xfe{", *lines[1:]]))
    store = Store(tmp_path)
    second = evaluate(make_plan(suite(arm("a"))), store, LocalRunner())
    assert (second.edited, second.measured) == (1, 1) and store.unreadable >= 2
    assert second.table.scores == first.table.scores


def test_a_picture_of_the_store_that_is_gone_is_made_again_and_one_that_changed_is_an_error(tmp_path: Path) -> None:
    plan = make_plan(suite(arm("a")))
    first = evaluate(plan, Store(tmp_path), LocalRunner())
    gone, changed = (tmp_path / str(first.table.edits[i].picture) for i in (0, 3))
    gone.unlink()
    changed.write_bytes(b"not a picture")
    for file in (tmp_path / "scores").iterdir():
        file.unlink()
    second = evaluate(plan, Store(tmp_path), LocalRunner())
    assert second.edited == 1 and gone.is_file()
    errors = {line.sample_id for line in second.table.scores if line.error is not None}
    assert errors == {first.table.edits[3].sample_id} and len(second.table.scores) == 6


def test_a_folder_that_cannot_be_a_store_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be used"):
        Store(tmp_path / "file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/format").write_text("99\n")
    with pytest.raises(InputError, match="has format 99"):
        Store(tmp_path / "other")
