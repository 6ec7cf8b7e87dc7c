"""`careedit bench engine` on untrained weights: what it says is consistent, and what it times is what it claims."""

from __future__ import annotations

import json
import statistics
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from careedit.bench import GOALS, bench_engine, load_subject, random_subject
from careedit.bench.engine import BATCH, COMPARISONS, memory_shares, one_by_one, pairs_of, stock, together
from careedit.bench.gpu import NAMES
from careedit.cli import bench
from careedit.cli.main import main
from careedit.errors import ExpertError, InputError
from careedit_tiny.models.untrained import untrained_subject

FIGURES = (*COMPARISONS, "memory_share_per_expert")


@pytest.fixture(scope="session")
def subject():
    return untrained_subject(experts=3, rank=8)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """One short run through the command line: its document, and the file that it wrote."""
    out = tmp_path_factory.mktemp("bench") / "engine.json"
    arguments = ["--repeats", "2", "--steps", "1", "--threads", "1", "--expert-set", "untrained", "--json", "--out"]
    assert main(["bench", "engine", *arguments, str(out)]) == 0
    return json.loads(out.read_text("utf-8")), out


def test_every_promised_key_is_at_the_top_level(run):
    document = run[0]

    assert all(document[name] > 0 for name in FIGURES)
    assert set(document) == {"version", *FIGURES, "goals", "details", "environment"}


@pytest.mark.parametrize("name", COMPARISONS)
def test_each_ratio_can_be_computed_again_from_its_laps(name, run):
    detail = run[0]["details"][name]
    ratios = [a / b for a, b in zip(detail["seconds"], detail["over_seconds"], strict=True)]

    assert len(ratios) == 2
    assert detail["ratios"] == pytest.approx(ratios)
    assert run[0][name] == pytest.approx(statistics.median(ratios))
    assert detail["spread"] == pytest.approx({"low": min(ratios), "high": max(ratios)})


def test_each_verdict_can_be_computed_again_from_figure_and_bound(run):
    document = run[0]

    assert set(document["goals"]) == set(GOALS)
    for name, entry in document["goals"].items():
        upper = entry["goal"].startswith("at most")
        assert entry["met"] is (document[name] <= entry["bound"] if upper else document[name] >= entry["bound"])


def test_the_environment_says_what_ran_but_not_where(run):
    environment = run[0]["environment"]

    assert (environment["threads"], environment["steps"], environment["repeats"]) == (1, 1, 2)
    assert (environment["expert_set"], environment["device"], environment["dtype"]) == ("untrained", "cpu", "float32")
    assert environment["torch"] == torch.__version__
    assert set(environment) == {
        *("expert_set", "experts", "base_parameters", "panel", "steps", "batch", "repeats"),
        *("threads", "device", "dtype", "torch", "diffusers", "peft", "python"),
    }


def test_an_unknown_set_is_refused(tmp_path):
    with pytest.raises(ExpertError, match="not an expert set"):
        load_subject(str(tmp_path))


def test_a_set_on_disk_can_be_measured(untrained_set):
    subject = load_subject(str(untrained_set), device="cpu")

    *_, batch = pairs_of(subject, 1)["mixed_batch_speedup"]

    assert (subject.name, subject.steps, len(subject.library.names)) == ("untrained", 2, 5)
    assert len(batch()) == BATCH
    assert 0 < memory_shares(subject)["subject"] < 0.1


def test_the_number_of_threads_is_put_back(subject, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr("careedit.bench.engine.pairs_of", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        bench_engine(subject, repeats=1, steps=1, threads=before + 1)

    assert torch.get_num_threads() == before


def test_wrong_counts_are_refused_in_the_library_too(subject):
    with pytest.raises(InputError, match="repeats is 0"):
        bench_engine(subject, repeats=0)


def test_the_single_edits_and_the_batch_make_the_same_pictures(subject):
    jobs = [subject.job(index, subject.library.names[index % 3], 2) for index in range(4)]

    singles, batch = one_by_one(subject.shared, jobs), together(subject.shared, jobs)

    assert len({picture.tobytes() for picture in singles}) == 4
    for one, other in zip(singles, batch, strict=True):
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1  # a rounding of an 8-bit value at most


def test_the_loop_and_the_pipeline_make_the_same_picture(subject):
    job = subject.job(0, subject.library.names[1], 3)

    (own,) = one_by_one(subject.merged, [job])
    theirs = stock(subject, job).crop((64, 0, 128, 64))

    assert np.abs(np.asarray(own, int) - np.asarray(theirs, int)).max() <= 1


@pytest.mark.parametrize("family", NAMES)
def test_every_family_can_be_measured_against_its_own_pipeline(family):
    other = random_subject(family, device="cpu")
    job = other.job(0, other.library.names[1], 2)

    (own,) = one_by_one(other.merged, [job])
    theirs = stock(other, job)
    theirs = theirs.crop((64, 0, 128, 64)) if family == "fill" else theirs

    assert np.abs(np.asarray(own, int) - np.asarray(theirs, int)).max() <= 1
    assert len(together(other.shared, [job, other.job(1, other.library.names[0], 2)])) == 2


def test_the_command_takes_a_family_instead_of_a_set(subject, run, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(bench, "random_subject", lambda family, **_: asked.append(family) or subject)
    monkeypatch.setattr(
        bench, "bench_engine", lambda measured, **_: asked.append(measured) or SimpleNamespace(document=lambda: run[0])
    )
    arguments = ["bench", "engine", "--family", "klein", "--repeats", "1", "--steps", "1", "--json"]
    assert main(arguments) == 0
    assert asked == ["klein", subject] and json.loads(capsys.readouterr().out)["loop_over_pipeline"] > 0

    assert main([*arguments, "--expert-set", "untrained"]) == 2
    assert "leave out --family or --expert-set" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["bench", "engine", "--family", "sdxl"]) == 2
    assert "choose one of fill, kontext, klein, qwen" in capsys.readouterr().err


def test_a_batch_has_eight_edits_and_uses_every_expert(subject, monkeypatch):
    rows: list[tuple[str, ...]] = []
    velocity = subject.shared.applier.velocity
    monkeypatch.setattr(
        subject.shared.applier, "velocity", lambda names, inputs: rows.append(tuple(names)) or velocity(names, inputs)
    )
    _, singles, _, batch = pairs_of(subject, 1)["mixed_batch_speedup"]
    rows.clear()

    singles()
    batch()

    assert [len(row) for row in rows] == [1] * BATCH + [BATCH]
    assert set(rows[-1]) == set(subject.library.names)
    assert sorted(rows[-1]) == sorted(name for row in rows[:BATCH] for name in row)


def test_every_run_encodes_afresh(subject):
    jobs = [subject.job(index, subject.library.names[0], 1) for index in range(2)]

    for run in (one_by_one, together):
        before = subject.shared.cache.misses
        run(subject.shared, jobs)
        assert subject.shared.cache.misses - before == 4


def test_memory_is_counted_for_flux_and_for_the_set_itself(subject):
    shares = memory_shares(subject)

    assert 0 < shares["flux"] <= 0.03
    assert shares["subject_rank_32"] == pytest.approx(4 * shares["subject"])  # rank 8 on the same modules
