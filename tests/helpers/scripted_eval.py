"""A benchmark, editors and metrics of a few lines, which a suite names as "scripted_eval:NAME"; workers import them too."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from careedit.errors import CareEditError
from careedit_eval.editors import Edited, EditWork
from careedit_eval.metrics.base import ScoreItem, one_by_one
from careedit_eval.pictures import PictureRef
from careedit_eval.pipeline import LocalRunner, Store, evaluate
from careedit_eval.pipeline.plan import make_plan
from careedit_eval.records import Better, JudgeAnswer, Measurement, MetricSpec, Output, Sample, fingerprint_of
from careedit_eval.results import EditLine, Table
from careedit_eval.runs import Run, load_run, save_run
from careedit_eval.suite import Arm, Part, Suite

KINDS = ("Add", "Remove")


def file_of(shade: int, size: int = 8) -> bytes:
    """A PNG of one grey."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


class Drawn:
    """`n` grey samples, two on each source; with `turns` they are sessions of that many turns."""

    revision = "1"

    def __init__(
        self,
        n: int = 6,
        turns: int = 1,
        broken: str | None = None,
        name: str = "drawn",
        kinds: Sequence[str] = KINDS,
        words: str = "make it",
        masked: bool = False,
    ) -> None:
        self.name, self._n, self._turns, self._broken, self._kinds = name, n, turns, broken, kinds
        self._words, self._mask = words, PictureRef.of(file_of(255)) if masked else None

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.rows())

    def __len__(self) -> int:
        return self._n

    def rows(self) -> Iterator[Sample]:
        for i in range(self._n):
            later = i % self._turns > 0
            name = f"s{i:03}"
            yield Sample(
                id=name,
                kind=self._kinds[i % len(self._kinds)],
                instruction=f"{self._words} {i}",
                source=PictureRef.of(b"no picture" if name == self._broken else file_of(10 * (i // 2) % 250)),
                target=PictureRef.of(file_of(200)),
                mask=self._mask,
                group=f"g{i // 2}",
                turn=1 + i % self._turns,
                previous=f"s{i - 1:03}" if later else None,
            )


class Painter:
    """Makes a source brighter by `by`, plus a little that seed and sample decide; it can fail, count, and kill its process."""

    concurrency = 1

    def __init__(self, by: int = 50, log: str | None = None, fail: str = "", kill: str = "", spread: int = 9) -> None:
        self._by, self._log, self._fail, self._kill, self._spread = by, log, fail, kill, spread

    def edit(self, work: EditWork) -> Edited:
        if self._log is not None:
            with Path(self._log).open("a", encoding="ascii") as log:
                log.write(f"{work.sample_id}\n")
        if self._kill and work.sample_id == "s007" and Path(self._kill).exists():
            Path(self._kill).unlink()  # once
            os.kill(os.getpid(), signal.SIGKILL)
        if work.sample_id == self._fail:
            raise ValueError("the painter has no paint")
        noise = int(np.random.default_rng([work.seed, int(work.sample_id[1:])]).integers(self._spread + 1))
        image = work.source.point([min(255, value + self._by + noise) for value in range(256)] * 3)
        return Edited(image, seconds=0.5, nfe=4)


class Brightness:
    """Mean of an edit's pixels, 0 to 1; `fail` names a sample that it cannot measure."""

    needs: frozenset[str] = frozenset()

    def __init__(
        self,
        log: str | None = None,
        fail: str = "",
        version: int = 1,
        better: Better = "higher",
        error: str = "The light meter is dark.",
    ) -> None:
        self._log, self._fail, self._error = log, fail, error
        self.spec = MetricSpec(
            name="bright", outputs=(Output(name="bright", better=better),), protocol="test", code_version=version
        )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        return one_by_one(batch, self._one)

    def _one(self, item: ScoreItem) -> Measurement:
        if self._log is not None:
            with Path(self._log).open("a", encoding="ascii") as log:
                log.write(f"{item.sample.id}\n")
        if item.sample.id == self._fail:
            raise CareEditError(self._error)
        return Measurement(values={"bright": float(np.asarray(item.edited).mean()) / 255})


class Spoken(Brightness):
    """Brightness by a judge that says it; of the sample s001 it says nothing that can be read."""

    def _one(self, item: ScoreItem) -> Measurement:
        found = super()._one(item)
        if item.sample.id == "s001":
            words = JudgeAnswer(about="light", asked="How bright?", reply="Rather\nbright.")
            return Measurement(error="The judge's reply cannot be read.", answers=(words,))
        answer = JudgeAnswer(about="light", asked="How bright?", reply=f"{found.values['bright']:.3f}")
        return found.model_copy(update={"answers": (answer,)})


class Sharper:
    """A pairwise verdict: 1 where the edit is brighter than its rival, 0.5 where equal; its orders agree in every fourth."""

    needs = frozenset({"rival"})
    spec = MetricSpec(
        name="won",
        outputs=(Output(name="won", better="higher"), Output(name="agreed", better="neither", passes=True)),
        protocol="test",
        reference="rival",
    )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        return one_by_one(batch, self._one)

    def _one(self, item: ScoreItem) -> Measurement:
        return Measurement(values={"won": _won(item), "agreed": float(int(item.sample.id[1:]) % 4 == 0)})


def _won(item: ScoreItem) -> float:
    mine, other = (float(np.asarray(picture).mean()) for picture in (item.edited, item.rival))
    return 0.5 if mine == other else float(mine > other)


class Doubles:
    """Doubles numbers; with a folder, the first to see `deadly` dies with its process, and the next does not."""

    def __init__(self, deadly: int | None = None, folder: str = "") -> None:
        self._deadly, self._folder = deadly, folder

    def __call__(self, items) -> list[tuple[int, int]]:
        if self._deadly in items and not (mark := Path(self._folder) / "died").exists():
            mark.touch()
            os._exit(1)
        return [(2 * item, os.getpid()) for item in items]


class Hangs:
    """Never finishes what holds a 3."""

    def __call__(self, items) -> list[int]:
        while 3 in items:
            time.sleep(0.1)
        return list(items)


def drawn(**options) -> Drawn:
    return Drawn(**options)


def painter(**options) -> Painter:
    return Painter(**options)


def brightness(**options) -> Brightness:
    return Brightness(**options)


def spoken(**options) -> Spoken:
    return Spoken(**options)


def sharper() -> Sharper:
    return Sharper()


def arm(name: str, **options) -> Arm:
    """A set that is a painter."""
    return Arm(name=name, kind="custom", editor=Part(name="scripted_eval:painter", options=options))


def suite(*arms: Arm, n: int = 6, bench: dict | None = None, metric: dict | None = None, **fields) -> Suite:
    """A suite of painters."""
    return Suite(
        **{
            "name": "scripted",
            "benchmarks": (Part(name="scripted_eval:drawn", options={"n": n, **(bench or {})}),),
            "sets": arms or (arm("a"), arm("b", by=60)),
            "metrics": (Part(name="scripted_eval:brightness", options=metric or {}),),
            "primary": "bright",
            "rows": (),
            **fields,
        }
    )


def finished(wanted: Suite, folder: Path, name: str = "run") -> Run:
    """A suite, evaluated in a loop and written to `folder`/runs/`name`."""
    store = Store(folder / "store")
    found = evaluate(make_plan(wanted), store, LocalRunner())
    place = folder / "runs" / name
    return save_run(place, found, store=store.folder, suite_folder=folder, trigger="manual", seconds=1.0)


def with_traces(run: Run) -> Run:
    """The run, whose store has a trace with a routing decision for every edit; the choice depends on set and sample."""
    for file in (run.store / "edits").glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            name = "erase" if row["arm"] == "a" or int(row["sample_id"][1:]) % 3 else "style"
            decision = {
                "weights": {name: 1.0},
                "probabilities": {name: 0.9, "other": 0.1},
                "reason": f"It asks for {name}.",
            }
            row["trace"] = json.dumps({"routing": decision}) if row["error"] is None else None
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    chosen = [replace(line, experts=_choice(line)) for line in run.table.edits]
    Table(chosen, run.table.scores).write(run.folder)
    return load_run(run.folder)


def _choice(line: EditLine) -> str:
    if line.error is not None:
        return ""
    return "erase 1.00" if line.arm == "a" or int(line.sample_id[1:]) % 3 else "style 1.00"
