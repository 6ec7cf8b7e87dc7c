"""Edits that have not their source's size: kept and measured where a set says so or is a service, else an error."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from careedit.files import png_bytes
from careedit.images import decode_image
from careedit_eval.editors import Edited, EditWork
from careedit_eval.pictures import PictureRef
from careedit_eval.pipeline import LocalRunner, Store, evaluate
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.suite import Arm, Part
from scripted_eval import Drawn, file_of, suite


class Square:
    """Answers a grey square of one size, as some services do; remembers the sizes that it was given."""

    concurrency = 1
    seen: ClassVar[list[tuple[tuple[int, int], tuple[int, int] | None]]] = []

    def __init__(self, side: int = 32) -> None:
        self._side = side

    def edit(self, work: EditWork) -> Edited:
        self.seen.append((work.source.size, work.mask and work.mask.size))
        return Edited(Image.new("RGB", (self._side, self._side), (120, 120, 120)), seconds=0.5)


class Masked(Drawn):
    """Sessions whose editor is shown a mask of the source's size."""

    def rows(self):
        mask = Image.new("L", (8, 8), 0)
        mask.paste(255, (0, 0, 4, 4))
        for sample in super().rows():
            yield sample.model_copy(update={"mask": PictureRef.of(png_bytes(mask)), "mask_given": True})


def square(**options) -> Square:
    return Square(**options)


def masked(**options) -> Masked:
    return Masked(**options)


def sized(other_size: str | None, name: str = "s") -> Arm:
    return Arm(name=name, kind="custom", editor=Part(name=f"{__name__}:square"), other_size=other_size)


METRICS = ({"name": "scripted_eval:brightness"}, {"name": "l1"}, {"name": "l1", "options": {"against": "source"}})


def run(folder: Path, arm: Arm, **fields):
    wanted = suite(arm, metrics=METRICS, **fields)
    return evaluate(make_plan(wanted), Store(folder), LocalRunner())


def test_an_edit_of_another_size_is_kept_measured_and_noted(tmp_path: Path) -> None:
    found = run(tmp_path, sized("keep"))
    (line, *_) = found.table.edits
    assert line.error is None and line.notes == "the edit is 32x32, its source 8x8"
    assert decode_image(tmp_path / str(line.picture)).size == (32, 32), "the edit is kept as it came"
    (score, *_) = found.table.column("drawn", "s", "l1").values()
    assert score.value == pytest.approx(80 / 255) and score.notes == "the edit is 32x32, resized to 8x8"


def test_a_set_of_ones_own_that_changes_the_size_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    found = run(tmp_path, sized(None))
    (error,) = {line.error for line in found.table.edits}
    assert error is not None and error.startswith("The editor returned 32x32 for a source of 8x8; mend it, or")
    assert error.endswith("with other_size: keep in the set 's'.")
    again = run(tmp_path, sized("keep"))
    assert again.edited == 6 and not any(line.error for line in again.table.edits)
    strict = run(tmp_path, sized("refuse"))
    assert all(line.error for line in strict.table.edits), "what was kept is not found where it is refused"


def test_a_wish_about_sizes_makes_another_key_only_where_it_changes_something() -> None:
    def keys(arm: Arm) -> tuple[str, ...]:
        return make_plan(suite(arm)).tasks[0].keys

    assert keys(sized(None)) == keys(sized("refuse")) != keys(sized("keep"))


def test_a_later_turn_gets_the_picture_as_it_came_or_fitted_to_its_mask(tmp_path: Path) -> None:
    Square.seen.clear()
    run(tmp_path / "plain", sized("keep"), n=2, bench={"turns": 2})
    assert Square.seen == [((8, 8), None), ((32, 32), None)]
    Square.seen.clear()
    bench = (Part(name=f"{__name__}:masked", options={"n": 2, "turns": 2}),)
    found = run(tmp_path / "masked", sized("keep"), benchmarks=bench)
    assert Square.seen == [((8, 8), (8, 8)), ((8, 8), (8, 8))]
    assert [line.notes for line in found.table.edits] == [
        "the edit is 32x32, its source 8x8",
        "the picture of the turn before is 32x32, resized to its mask's 8x8; the edit is 32x32, its source 8x8",
    ]


def test_the_truth_has_its_targets_size_so_its_distance_is_nothing(tmp_path: Path, monkeypatch) -> None:
    rows = Drawn.rows

    def larger(self):
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 16, 3), np.uint8))
        for sample in rows(self):
            yield sample.model_copy(update={"target": PictureRef.of(png_bytes(noise))})

    monkeypatch.setattr(Drawn, "rows", larger)
    found = run(tmp_path, Arm(name="identity", kind="identity"), rows=("truth",))
    assert {line.value for line in found.table.column("drawn", "truth", "l1").values()} == {0.0}


@pytest.fixture
def service() -> Iterator[str]:
    """A service that answers 1024x1024 whatever it is sent."""
    data = base64.b64encode(file_of(120, 1024)).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"data": [{"id": "vendor-1"}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self._answer({"data": [{"b64_json": data}]})

        def _answer(self, document: dict) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_service_that_always_answers_1024_is_measured_by_every_metric(tmp_path: Path, service: str) -> None:
    live = Arm(name="live", kind="http", url=service, extensions=False)
    metrics = ({"name": "l1"}, {"name": "oracle"}, {"name": "preservation"}, {"name": "latency"})
    wanted = suite(
        live,
        benchmarks=({"name": "tiny_humanedit", "options": {"rows": 6}},),
        metrics=metrics,
        primary="l1",
    )
    found = evaluate(make_plan(wanted), Store(tmp_path), LocalRunner())
    assert not [line.error for line in (*found.table.edits, *found.table.scores) if line.error]
    assert {line.notes for line in found.table.edits} == {"the edit is 1024x1024, its source 64x64"}
    measured = {line.output for line in found.table.scores if line.value is not None}
    assert measured == {"l1", "oracle_followed", "oracle_preserved", "oracle_compliant", "preservation", "latency"}
