"""The packaged set, edited here and by a live service: the same rows; masks, references and sizes reach both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from careedit_eval.pipeline import LocalRunner, Store, evaluate
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.suite import Arm, Part, Suite
from served import serve

SETTINGS = {"arms": {"tiny": {"expert_set": "tiny", "device": "cpu"}}, "batch": 1}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A careedit service in this process."""
    from careedit_deployments.config import ServeConfig
    from local_backend import LocalBackend

    backend = LocalBackend.load(ServeConfig(**SETTINGS))
    with serve(tmp_path_factory.mktemp("served"), backend, **SETTINGS) as served:
        yield f"{served.url}/v1"
    backend.close()


def suite(tmp_path: Path, *arms: Arm, **fields) -> Suite:
    return Suite(
        name="real",
        benchmarks=(Part(name="tiny_humanedit", options={"rows": 6, "path": str(tmp_path / "drawn"), "masks": "all"}),),
        sets=arms,
        metrics=(Part(name="oracle"), Part(name="l1"), Part(name="nfe")),
        primary="oracle_compliant",
        **{"rows": (), **fields},
    )


def test_a_service_and_this_process_edit_alike(tmp_path: Path, address: str) -> None:
    arms = (
        Arm(name="here", expert_set="tiny", device="cpu", steps=2),
        Arm(name="there", kind="http", url=address, model="tiny", steps=2, concurrency=2),
    )
    store = Store(tmp_path / "store")
    found = evaluate(make_plan(suite(tmp_path, *arms)), store, LocalRunner())
    (benchmark,) = found.table.benchmarks
    here, there = (found.table.edits_of(benchmark, name) for name in ("here", "there"))
    assert [line.error for line in (*here.values(), *there.values())] == [None] * 12
    for pair, line in here.items():
        other = there[pair]
        assert (other.nfe, other.experts, other.kind, other.alignment) == (
            line.nfe,
            line.experts,
            line.kind,
            line.alignment,
        )
        files = [(store.folder / str(one.picture)).read_bytes() for one in (line, other)]
        assert hashlib.sha256(files[0]).hexdigest() == hashlib.sha256(files[1]).hexdigest(), pair
    for output in ("oracle_compliant", "l1", "nfe"):
        values = [
            [line.value for line in found.table.column(benchmark, name, output).values()] for name in ("here", "there")
        ]
        assert values[0] == values[1] and None not in values[0]


def test_the_rows_beside_a_set_are_made_of_its_base_and_experts(tmp_path: Path) -> None:
    rows = ("identity", "truth", "base", "best_single", "oracle")
    arm = Arm(name="tiny", expert_set="tiny", device="cpu", steps=2)
    found = evaluate(make_plan(suite(tmp_path, arm, rows=rows)), Store(tmp_path / "store"), LocalRunner())
    (benchmark,) = found.table.benchmarks
    arms = found.table.arms(benchmark)
    assert {*rows, "tiny", "single/erase", "single/compose"} <= set(arms)
    whole = {name: [line.value for line in found.table.column(benchmark, name, "l1").values()] for name in arms}
    assert whole["truth"] == [0.0] * 6 and all(value is not None and value > 0 for value in whole["identity"])
    assert {line.experts for line in found.table.edits_of(benchmark, "base").values()} == {"base 1.00"}
    chosen = {line.experts for line in found.table.edits_of(benchmark, "best_single").values()}
    assert len(chosen) == 1 and chosen != {"base 1.00"}
    assert {line.seed for line in found.table.edits} == {0}, "the noise on which experts are chosen is not measured"
