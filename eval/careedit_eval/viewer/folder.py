"""A run to look at, in a folder of this machine or at any address of fsspec (s3://, memory://)."""

from __future__ import annotations

import json
import posixpath
import shutil
import tempfile
import threading
import weakref
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
from PIL import Image

from careedit.errors import CareEditError, InputError
from careedit.files import check_relative, is_url, png_bytes
from careedit_eval.alignment import load_pictures
from careedit_eval.errors import BenchmarkError, reason_of
from careedit_eval.pictures import read_bytes
from careedit_eval.pipeline.plan import Rows, rows_of
from careedit_eval.pipeline.store import ANSWERS
from careedit_eval.records import AnswerRow, Sample, score_key
from careedit_eval.results import EDITS_FILE, SCORES_FILE, EditLine
from careedit_eval.runs import RUN_FILE, Run, load_run

MASK = (220, 40, 40, 255)
"""The colour of the area of the edit, RGBA."""


class ViewedRun:
    """One run with its images and traces. Everything large is read when it is first needed, by any thread."""

    def __init__(self, address: str) -> None:
        """Raises `InputError` if the folder is not a finished run or cannot be read."""
        self.address = address.rstrip("/")
        self._lock = threading.Lock()
        self._is_remote = is_url(address)
        if self._is_remote:
            # Its tables are small; images and traces stay where they are.
            folder = Path(tempfile.mkdtemp(prefix="careedit-view-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            for name in (RUN_FILE, EDITS_FILE, SCORES_FILE):
                (folder / name).write_bytes(read_bytes(f"{self.address}/{name}"))
        else:
            folder = Path(address)
            self.address = str(folder.resolve())
        self.run: Run = load_run(folder)
        self.store = joined(self.address, self.run.record.store)

    @property
    def id(self) -> str:
        """The id of the run, which is the name of its folder."""
        return self.run.record.id

    def line(self, benchmark: str, arm: str, sample_id: str, seed: int) -> EditLine:
        """One edit. Raises `InputError` if the run does not have it."""
        line = self.run.table.edits_of(benchmark, arm).get((sample_id, seed))
        if line is None:
            raise InputError(f"The run {self.id} has no edit of {sample_id!r} by {arm!r} with the seed {seed}.")
        return line

    def edited(self, benchmark: str, arm: str, sample_id: str, seed: int) -> bytes:
        """The image file of an edit. Raises `InputError` or `BenchmarkError` if it is missing."""
        line = self.line(benchmark, arm, sample_id, seed)
        if line.picture is None:
            raise InputError(f"This edit failed: {line.error}")
        check_relative(line.picture)
        return read_bytes(joined(self.store, line.picture))

    @cached_property
    def _rows(self) -> Mapping[str, Rows] | BenchmarkError:
        """The benchmarks' rows, or why they cannot be read here."""
        record = self.run.record
        own = [part.name for part in record.suite.benchmarks if ":" in part.name]
        if self._is_remote and own:
            return BenchmarkError(
                f"The benchmark {own[0]!r} is a function that the run names; copy the run to this machine to call it."
            )
        try:
            limit = record.narrowed.limit if record.narrowed is not None else None
            return {rows.name: rows for rows in rows_of(record.suite, limit)}
        except CareEditError as error:
            return BenchmarkError(f"The rows of the benchmark cannot be read here ({error})")

    @cached_property
    def _samples(self) -> Mapping[tuple[str, str], Sample]:
        rows = self._rows
        if isinstance(rows, BenchmarkError):
            raise rows
        return {(one.name, sample.id): sample for one in rows.values() for sample in one.samples}

    def sample(self, benchmark: str, sample_id: str) -> Sample:
        """A row of a benchmark. Raises `BenchmarkError` if the benchmark is not here or has no such row."""
        with self._lock:
            found = self._samples.get((benchmark, sample_id))
        if found is None:
            raise BenchmarkError(f"The benchmark {benchmark!r} has no sample {sample_id!r} any more.")
        return found

    def warnings(self) -> list[str]:
        """Benchmarks whose rows are not those of the run any more, or cannot be read here."""
        with self._lock:
            rows = self._rows
        if isinstance(rows, BenchmarkError):
            return [str(rows)]
        return [
            f"The rows of {facts.name} have changed since this run: sources and targets may be others."
            for facts in self.run.record.benchmarks
            if facts.name in rows and rows[facts.name].fingerprint != facts.fingerprint
        ]

    def picture(self, benchmark: str, sample_id: str, role: str) -> bytes:
        """The "source", "target", "mask" or "reference-N" of a sample, as metrics see it, as a PNG file.

        The mask is red in the area of the edit, and else transparent. Raises `InputError` or `BenchmarkError`.
        """
        found = load_pictures(self.sample(benchmark, sample_id))
        name, _, number = role.partition("-")
        picture: Image.Image | None = None
        if role in ("source", "target", "mask"):
            picture = getattr(found, role)
        elif name == "reference" and number.isdecimal() and int(number) < len(found.references):
            picture = found.references[int(number)]
        if picture is None:
            raise InputError(f"The sample {sample_id!r} has no {role!r}.")
        if role == "mask":
            area = Image.new("RGBA", picture.size, MASK)
            area.putalpha(picture)
            picture = area
        return png_bytes(picture, compress_level=1)

    @cached_property
    def _traces(self) -> Mapping[str, str]:
        """The trace of every edit of the run, by edit key. Raises `BenchmarkError` if the store is not here."""
        wanted = {line.edit_key for line in self.run.table.edits}
        found: dict[str, str] = {}
        for name in listed(f"{self.store}/edits", "*.jsonl"):
            for text in read_bytes(name).splitlines():
                try:
                    row = json.loads(text)
                    if row["edit_key"] in wanted and row.get("trace") is not None:
                        found[row["edit_key"]] = row["trace"]
                except (ValueError, TypeError, KeyError):
                    continue  # a damaged line: the store makes its edit again
        return found

    def trace(self, edit_key: str) -> Any:
        """The trace of an edit as JSON data; None if it has none. Raises `BenchmarkError` if the store is not here."""
        with self._lock:
            text = self._traces.get(edit_key)
        try:
            return None if text is None else json.loads(text)
        except ValueError as error:
            raise BenchmarkError(f"The trace of the edit {edit_key[:12]} is damaged; make the edit again.") from error

    @cached_property
    def _answers(self) -> Mapping[str, list[dict[str, Any]]]:
        """The answers of judges by score key. Raises `BenchmarkError` if the store is not here."""
        found: dict[str, list[dict[str, Any]]] = {}
        for name in listed(f"{self.store}/{ANSWERS}", "*.jsonl"):
            for text in read_bytes(name).splitlines():
                try:
                    row = AnswerRow(**json.loads(text))
                except (ValueError, TypeError, InputError):
                    continue  # a damaged line
                found[row.score_key] = [answer.model_dump() for answer in row.answers]
        return found

    def answers(self, edit_key: str, rivals: Mapping[str, str]) -> list[dict[str, Any]]:
        """The answers of every judge about an edit, by metric and rival. `rivals` are edit keys by the name of their set.

        Empty if the run was made before answers were stored. Raises `BenchmarkError` if the store is not here.
        """
        with self._lock:
            known = self._answers
        found = []
        for spec in self.run.record.metrics:
            others = rivals.items() if spec.reference == "rival" else [(None, None)]
            for rival, other in others:
                answers = known.get(score_key(edit_key, spec, other))
                if answers:
                    found.append({"metric": spec.name, "judge": spec.backbone, "rival": rival, "answers": answers})
        return found

    def siblings(self) -> list[str]:
        """The addresses of all runs in the folder of this one, oldest first. Raises `BenchmarkError`."""
        parent = posixpath.dirname(self.address)
        return [posixpath.dirname(name) for name in listed(parent, f"*/{RUN_FILE}")]


def joined(address: str, relative: str) -> str:
    """A path relative to an address, without "..", because a bucket has no parents."""
    protocol, mark, path = address.rpartition("://")
    return f"{protocol}{mark}{posixpath.normpath(posixpath.join(path, relative))}"


def listed(folder: str, pattern: str) -> list[str]:
    """The addresses of the files in a folder that match, sorted by name. Raises `BenchmarkError`."""
    try:
        files, path = fsspec.core.url_to_fs(folder)
        names = sorted(str(name) for name in files.glob(f"{path}/{pattern}"))
    except Exception as error:  # each file system raises its own kind
        raise BenchmarkError(
            f"{folder!r} cannot be listed ({reason_of(error)}); check path, network and rights."
        ) from error
    return [str(files.unstrip_protocol(name)) if is_url(folder) else name for name in names]
