"""Every suite that comes along is planned and run: on small data in the published columns, with the package's small models."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from careedit_eval.benchmarks import load_benchmark, shards
from careedit_eval.benchmarks.gedit import KINDS
from careedit_eval.benchmarks.imgedit import KINDS as IMGEDIT
from careedit_eval.cli.work import SUITES
from careedit_eval.errors import BenchmarkError
from careedit_eval.metrics.rubric import FOLDER as RUBRICS
from careedit_eval.pipeline import LocalRunner, Store, evaluate
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.report import analyse, write_analysis, write_report
from careedit_eval.runs import save_run
from careedit_eval.suite import Part, Suite, load_suite
from faulty_endpoint import Server, completion, says
from published import anybench, gedit_rows, imgedit, kris, rise, write_arrow

EMBEDDED = ("clip_i", "clip_t", "clip_direction", "dino")
"""Metrics whose models have gigabytes and are on a hub; the package has small ones of the same classes."""

CONDITIONAL = ("kris_knowledge", "rise_plausibility")
"""Numbers that do not apply to every row."""


@pytest.fixture
def data(tmp_path, human_rows, write_shard, archive, draw_picture) -> dict[str, Callable[[], dict[str, Any]]]:
    """Per benchmark what makes its data, a few rows as they are published, and gives the options to read them by."""

    def humanedit() -> dict[str, Any]:
        write_shard(tmp_path / "humanedit/data/train-00000-of-00001.parquet", human_rows(6))
        return {"path": str(tmp_path / "humanedit")}

    def emu_edit() -> dict[str, Any]:
        rows = [
            {"instruction": f"add {i}", "image": draw_picture((64, 64), seed=i), "task": "add", "split": "test", "idx": i,
             "hash": f"h{i}", "input_caption": "a red square", "output_caption": "a blue circle"}
            for i in range(4)
        ]  # fmt: skip
        write_shard(tmp_path / "emu/data/test-00000-of-00001.parquet", rows)
        return {"path": str(tmp_path / "emu")}

    def gedit() -> dict[str, Any]:
        write_arrow(tmp_path / "gedit/data-00000-of-00001.arrow", gedit_rows(KINDS[:2]))
        return {"path": str(tmp_path / "gedit")}

    return {
        "humanedit": humanedit,
        "emu_edit": emu_edit,
        "gedit": gedit,
        "imgedit": lambda: {"path": str(imgedit(tmp_path / "imgedit", ["add"])), "images": None},
        "kris": lambda: {"path": str(kris(tmp_path / "kris"))},
        "rise": lambda: {"path": str(rise(tmp_path / "rise"))},
        "anyedit": lambda: {"path": str(anybench(tmp_path / "anybench"))},
        "magicbrush": lambda: {"path": str(archive)},
        "tiny_humanedit": lambda: {"path": str(tmp_path / "tiny"), "rows": 6},
    }


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Iterator[dict[str, Any]]:
    """What rubrics need: an endpoint that gives every mark in every form, and a file with every prompt."""
    marks = dict.fromkeys(("consistency", "instruction", "knowledge", "quality"), 4)
    scores = {"score": [7, 8], **{f"{name}_score": mark for name, mark in marks.items()}}
    text = f"Compliance: 4\nNatural: 5\nPhysical: 5\n{json.dumps(scores)}\nThe final score (4)"
    asked = re.findall(r"prompt: (\w+)", "".join(file.read_text("utf-8") for file in RUBRICS.glob("*.yaml")))
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.json"
    prompts.write_text(json.dumps(dict.fromkeys([*asked, *IMGEDIT], "Judge.")))
    server = Server(says(completion(text)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield {"endpoint": {"base_url": server.url, "model": "judge"}, "prompts": str(prompts)}
    server.shutdown()
    thread.join()
    server.server_close()


def small(suite: Suite, data: dict[str, Callable[[], dict[str, Any]]], judge: dict[str, Any]) -> Suite:
    """The suite with small data, small models, one step and one seed; everything else is the file's."""
    unknown = {part.name for part in suite.benchmarks} - data.keys()
    assert not unknown, f"write what makes small data of {unknown} in this test"
    benchmarks = tuple(
        part.model_copy(update={"options": {**part.options, **data[part.name]()}}) for part in suite.benchmarks
    )
    sets = tuple(arm.model_copy(update={"expert_set": "tiny", "steps": 1}) for arm in suite.sets)
    metrics = tuple(
        Part(name=part.name, options={**part.options, "protocol": "tiny-v1"})
        if part.name in EMBEDDED
        else Part(name=part.name, options={**part.options, **{k: v for k, v in judge.items() if k in part.options}})
        for part in suite.metrics
    )
    workers = suite.workers.model_copy(update={"num_gpus": 0.0, "score_num_gpus": 0.0})
    changes = {"benchmarks": benchmarks, "sets": sets, "metrics": metrics, "workers": workers}
    return suite.model_copy(update={**changes, "seeds": suite.seeds[:1]})


@pytest.mark.parametrize("file", sorted(SUITES.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_suite_that_comes_along_is_planned_and_run(file: Path, data, judge, tmp_path) -> None:
    suite = small(load_suite(file), data, judge)
    store = Store(tmp_path / "store")
    found = evaluate(make_plan(suite, limit=1), store, LocalRunner())
    assert [line.error for line in (*found.table.edits, *found.table.scores) if line.error is not None] == []
    assert found.plan.missing == {}
    for output in found.plan.outputs:
        values = [line.value for line in found.table.scores if line.output == output and line.applies]
        assert values or output in CONDITIONAL, output
        assert all(value is not None and math.isfinite(value) for value in values), output
    run = save_run(
        tmp_path / "runs/run", found, store=store.folder, suite_folder=file.parent, trigger="manual", seconds=1.0
    )
    analysis = analyse(run)
    write_analysis(run, analysis)
    assert write_report(run, analysis).is_file()
    assert (analysis.verdict is None) == (suite.gate is None)


def test_a_suites_data_is_on_the_hub_unless_a_path_is_given(monkeypatch) -> None:
    for name in ("emu_edit", "gedit"):
        monkeypatch.setattr(f"careedit_eval.benchmarks.{name}.newest_commit", lambda path: "c" * 40)
    assert load_benchmark("gedit").path == f"hf://datasets/stepfun-ai/GEdit-Bench@{'c' * 40}"
    assert load_benchmark("humanedit").path.startswith("hf://datasets/BryanW/HumanEdit@dbc60b9b")
    emu = load_benchmark("emu_edit")
    assert (emu.path, emu.revision) == (f"hf://datasets/facebook/emu_edit_test_set@{'c' * 40}", "c" * 40)
    assert load_benchmark("emu_edit", revision="d").revision == "d"


def test_a_hub_that_cannot_be_reached_is_a_sentence(monkeypatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    with pytest.raises(BenchmarkError, match=r"no route to host.*state `revision`, or give the `path`"):
        load_benchmark("emu_edit")
    monkeypatch.setattr(shards.fsspec.core, "url_to_fs", unreachable)
    with pytest.raises(BenchmarkError, match=r"BryanW/HumanEdit.*cannot be listed \(no route to host\); check"):
        load_benchmark("humanedit").rows()
