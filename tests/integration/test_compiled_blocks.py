"""Compiled blocks: after the warm-up nothing is compiled again, whatever is edited; a trace says that blocks are compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import small_bases
from careedit.editing import Engine, warm_up
from careedit.editor import Editor, load_editor
from careedit.errors import ExpertError
from careedit.experts import Defaults, PanelSpec, applier, load_expert_set
from careedit.images import panel_sizes
from careedit.records import EditRequest
from careedit_deployments.replica.choice import ExpertSettings, SetChoice
from careedit_deployments.replica.live import LiveSet
from random_sets import make_random_set

EXPERTS = {"erase": ("remove",), "style": ("style",), "type": ("type",)}
BATCH = 4


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The graphs that were made; they run as they are, so that no kernels are generated."""
    made: list[Any] = []

    def backend(module: torch.fx.GraphModule, _: Any) -> Any:
        made.append(module)
        return module.forward

    use(monkeypatch, backend=backend)
    torch._dynamo.reset()
    yield made
    torch._dynamo.reset()


def use(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    monkeypatch.setattr(applier, "COMPILING", MappingProxyType({**applier.COMPILING, **options}))


@pytest.fixture
def make_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], str]:
    small_bases.use_small_areas(monkeypatch)
    panel = PanelSpec(size=96, fit="bucket", multiple=32)

    def make(pipe: Any) -> str:
        length = small_bases.TEXT_LENGTH if hasattr(pipe, "text_encoder_2") else 512
        options = {"length": length, "panel": panel, "defaults": Defaults(steps=2)}
        return str(make_random_set(tmp_path / "set", pipe, EXPERTS, **options))

    return make


def picture(size: tuple[int, int], shade: int = 120) -> Image.Image:
    return Image.new("RGB", size, (shade, 255 - shade, 90))


def edits(editor: Editor) -> list[list[EditRequest]]:
    """Batches of 1 to `BATCH` rows, of other experts, steps, sizes, masks, references and texts."""
    facts, application = editor.engine.base.facts, editor.application
    guidance = {"guidance": 1.0} if editor.engine.base.guidance == "branches" else {}
    # A replica with a merged expert has batches of that expert only.
    mixed = {"erase": 0.5, "style": 0.5} if application == "shared" else "style"
    rows: list[dict[str, Any]] = [
        {"expert": "style", "instruction": "make it look like a pencil sketch, please", "steps": 3},
        {"expert": mixed, "mask": Image.new("L", (90, 60), 255)},
        {"expert": "base" if application == "shared" else "style"},
        {"expert": "type", "references": tuple(picture((60, 90), 30) for _ in range(min(1, facts.references)))},
    ]
    requests = [
        EditRequest(image=picture((90, 60), 50 * i), seed=i, **{"instruction": "remove it", **guidance, **fields})
        for i, fields in enumerate(rows)
    ]
    other = EditRequest(image=picture((40, 90)), instruction="remove it", seed=9, expert="type", n=2)
    return [requests[:1], requests[:2], requests[:3], requests[3:], [other]]


def warm(editor: Editor) -> None:
    """Only two of the panel sizes: sizes are symbolic."""
    job = editor.slots(EditRequest(image=picture((96, 96)), instruction="look", seed=0, expert="base"))[0].job
    seen: list[tuple[int, int]] = []
    sizes = panel_sizes(96, "bucket", 32)[:2]
    warm_up(editor.engine, job, sizes, batch=BATCH, done=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("build", "application"),
    [(small_bases.klein, "shared"), (small_bases.qwen, "merged")],
)
def test_after_the_warm_up_no_edit_makes_another_graph(
    build: Callable[[], Any],
    application: Any,
    make_set: Callable[[Any], str],
    graphs: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = make_set(build())
    size = load_editor(folder, application="shared", compiled=True).engine.applier._size("")  # type: ignore[attr-defined]
    budget = 2 * size if application == "shared" else None  # two slots for three experts
    editor = load_editor(folder, application=application, compiled=True, byte_budget=budget)
    plain = load_editor(folder, application=application)
    warm(editor)
    made = len(graphs)
    assert made > 0
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    for requests in edits(editor):
        for result, expected in zip(editor.edit(requests), plain.edit(requests), strict=True):
            assert result.trace.runtime == f"{expected.trace.runtime}, compiled blocks"
            difference = np.asarray(result.image, dtype=int) - np.asarray(expected.image, dtype=int)
            assert np.abs(difference).max() <= 1
    assert len(graphs) == made


def test_a_replica_compiles_before_it_is_ready(
    untrained_set: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    step = Engine.step

    def recorded(engine: Engine, states: Any) -> None:
        batches.append(len(states))
        step(engine, states)

    monkeypatch.setattr(Engine, "step", recorded)
    use(monkeypatch, disable=True)
    settings = ExpertSettings(
        arm="main", expert="erase", batch=3, threads=1, device="cpu", workers=2, check_seconds=60, compiled=True
    )
    with caplog.at_level(logging.INFO, "careedit_deployments"):
        live = LiveSet(
            settings, SetChoice(expert_set=str(untrained_set), sha256=load_expert_set(str(untrained_set)).sha256)
        )
    live.retire()
    assert batches == [1, 2, 3, 1]  # the warm-up, and the step that shows that the expert is fit
    assert "Compiled for 1 of 1 panel sizes" in caplog.text
    assert live.editor.compiled and live.editor.engine.applier.active == "erase"  # type: ignore[attr-defined]


def test_blocks_that_cannot_be_compiled_are_refused(
    make_set: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def backend(_: torch.fx.GraphModule, __: Any) -> Any:
        raise RuntimeError("this machine has no compiler")

    use(monkeypatch, backend=backend)
    editor = load_editor(make_set(small_bases.klein()), compiled=True)
    with pytest.raises(ExpertError, match=r"Flux2Transformer2DModel cannot be compiled.* no compiler"):
        warm(editor)
    torch._dynamo.reset()
