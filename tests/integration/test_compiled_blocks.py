"""Compiled blocks: after the warm-up nothing is compiled again, whatever is edited; a trace says that blocks are compiled."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
import torch
from PIL import Image

import small_bases
from careedit.editing import warm_up
from careedit.editor import Editor, load_editor
from careedit.errors import ExpertError
from careedit.experts import Defaults, PanelSpec, applier
from careedit.images import panel_sizes
from careedit.records import EditRequest
from random_sets import make_random_set

BUILDERS = {
    "kontext": small_bases.kontext,
    "klein": small_bases.klein,
    "klein-kv": partial(small_bases.klein, kv=True),
    "qwen": small_bases.qwen,
    "longcat": small_bases.longcat,
}
EXPERTS = {"erase": ("remove",), "style": ("style",), "type": ("type",)}
BATCH = 4


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The graphs that were made; they run as they are, so that no kernels are generated."""
    made: list[Any] = []

    def backend(module: torch.fx.GraphModule, _: Any) -> Any:
        made.append(module)
        return module.forward

    monkeypatch.setattr(applier, "COMPILING", MappingProxyType({**applier.COMPILING, "backend": backend}))
    torch._dynamo.reset()
    yield made
    torch._dynamo.reset()


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    pipe = BUILDERS[request.param]()
    length = small_bases.TEXT_LENGTH if hasattr(pipe, "text_encoder_2") else 512
    panel = PanelSpec(size=96, fit="bucket", multiple=32)
    return str(make_random_set(tmp_path / "set", pipe, EXPERTS, length=length, panel=panel, defaults=Defaults(steps=2)))


def picture(size: tuple[int, int], shade: int = 120) -> Image.Image:
    return Image.new("RGB", size, (shade, 255 - shade, 90))


def edits(editor: Editor) -> list[list[EditRequest]]:
    """Batches of 1 to `BATCH` rows, of other experts, steps, sizes, masks, references and texts."""
    facts = editor.engine.base.facts
    guidance = {"guidance": 1.0} if editor.engine.base.guidance == "branches" else {}
    rows = [
        {"expert": "style", "instruction": "make it look like a pencil sketch, please", "steps": 3},
        {"expert": {"erase": 0.5, "style": 0.5}},
        {"expert": "base", "mask": Image.new("L", (90, 60), 255)},
        {"expert": "type", "references": tuple(picture((60, 90), 30) for _ in range(min(1, facts.references)))},
    ]
    requests = [
        EditRequest(image=picture((90, 60), 50 * i), seed=i, **{"instruction": "remove it", **guidance, **fields})
        for i, fields in enumerate(rows)
    ]
    other = EditRequest(image=picture((40, 90)), instruction="remove it", seed=9, expert="type", steps=1)
    return [[requests[0]], requests[:2], requests[:3], [requests[3]], [other], [other.model_copy(update={"n": 3})]]


@pytest.mark.parametrize("folder", BUILDERS, indirect=True)
@pytest.mark.parametrize("application", ["shared", "merged"])
def test_after_the_warm_up_no_edit_makes_another_graph(
    folder: str, application: Any, graphs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = load_editor(folder, application=application, compiled=True)
    job = editor.slots(EditRequest(image=picture((96, 96)), instruction="look", seed=0, expert="base"))[0].job
    seen: list[int] = []
    warm_up(editor.engine, job, panel_sizes(96, "bucket", 32), batch=BATCH, done=lambda done, _: seen.append(done))
    made = len(graphs)
    assert made > 0 and seen == list(range(1, len(panel_sizes(96, "bucket", 32)) + 1))
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    for requests in edits(editor):
        for result in editor.edit(requests):
            assert result.trace.runtime.endswith(", compiled blocks")
    assert len(graphs) == made
