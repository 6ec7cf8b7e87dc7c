"""What `careedit eval quality` and `careedit eval filter` share: noise, goals, facts of a run, and the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from careedit.bench.report import Goal, environment
from careedit.editor import Editor
from careedit.errors import InputError
from careedit.stats import LEVEL, RESAMPLES
from careedit_eval.pipeline.store import RowFiles
from careedit_tiny.world.samples import Sample

LIMIT = 50_000
"""The maximum number of scenes of one kind of measurement."""

Document = Mapping[str, Any]
"""The report of a run as JSON data."""


class Measured(Protocol):
    """A measurement that a cache can hold."""

    @property
    def key(self) -> str:
        """The hash of everything that the measurement depends on."""
        ...


Row = TypeVar("Row", bound=Measured)


@dataclass(frozen=True)
class Aim:
    """A goal, the figure that it is about, and what that figure needs."""

    goal: Goal
    """The bound that the figure should keep."""
    read: Callable[[Document], float | None]
    """Reads the figure from a document; None if it was not measured."""
    needs: tuple[str, ...] = ()
    """Keys of the document's `missing` that explain why the figure was not measured."""


def figure(*path: str | int) -> Callable[[Document], float | None]:
    """A reader of the figure at `path` in a document; the figure is None as soon as a part of the path is None."""

    def read(document: Document) -> float | None:
        value: Any = document
        for key in path:
            if value is None:
                return None
            value = value[key]
        return None if value is None else float(value)

    return read


def verdicts(document: Document, aims: Mapping[str, Aim]) -> dict[str, dict[str, Any]]:
    """Bound, value and verdict of every goal. A figure that was not measured has no verdict, but a reason if one is known."""
    found = {name: aim.goal.verdict(aim.read(document)) for name, aim in aims.items()}
    for name, aim in aims.items():
        if found[name]["value"] is None and aim.needs:
            reasons = (document["missing"][key] for key in aim.needs if key in document["missing"])
            found[name]["reason"] = next(reasons, "There was nothing to measure it on.")
    return found


def noise_seed(seed: int, draw: str, sample: Sample) -> int:
    """The seed of the noise of one scene: another one per `seed` and `draw`, independent of how many scenes there are."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{draw}:{sample.id}".encode()).digest()[:4], "big")


def check_range(values: Iterable[tuple[str, int | None, int, int]]) -> None:
    """Raise `InputError` for a value outside its range; each entry is name, value, minimum and maximum."""
    for name, value, low, high in values:
        if value is not None and not low <= value <= high:
            raise InputError(f"{name} is {value}; it must be between {low:,} and {high:,}.")


def run_facts(editor: Editor, seconds: float, **more: Any) -> dict[str, Any]:
    """The `environment` of a document: expert set, router, `more`, and what computed the figures."""
    expert_set = editor.expert_set
    return {
        "expert_set": expert_set.name,
        "expert_set_version": expert_set.version,
        "expert_set_sha256": expert_set.sha256,
        "router": editor.router.name,
        **more,
        "interval": LEVEL,
        "resamples": RESAMPLES,
        "run_seconds": seconds,
        **environment(editor.engine.base),
    }


class Cache(Generic[Row]):
    """Measurements by content key: in memory and, if there is a folder, on disk, so that a killed run can be resumed."""

    def __init__(self, kind: type[Row], folder: Path | None = None) -> None:
        """`kind` is a dataclass with a field `key`. Raises `InputError` if the folder cannot be used."""
        self._files = None if folder is None else RowFiles(folder, kind, lambda row: row.key)
        self._found: dict[str, Row] = {}
        if self._files is not None:
            self._files.compact()
            self._found = self._files.read()

    @property
    def unreadable(self) -> int:
        """Lines of the files that could not be read. Their measurements are made again."""
        return 0 if self._files is None else self._files.unreadable

    def get(self, key: str) -> Row | None:
        """The measurement, or None."""
        return self._found.get(key)

    def put(self, rows: Sequence[Row]) -> None:
        """Keep several measurements. Raises `RunError` if the disk is full."""
        self._found.update((row.key, row) for row in rows)
        if self._files is not None:
            self._files.write(rows)
