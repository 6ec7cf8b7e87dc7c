"""What all benchmarks share: where the rows are stored, which rows are used, and the fingerprint that detects changes."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TypeVar

from pydantic import Field

from careedit.errors import CareEditError
from careedit.record import Record
from careedit_eval.benchmarks.shards import resolve
from careedit_eval.errors import BenchmarkError
from careedit_eval.pictures import EMPTY, PictureRef
from careedit_eval.records import Sample, fingerprint_of

Row = TypeVar("Row")
UNVERSIONED = "unversioned"
"""The revision of a data set in a folder or bucket, which has no revision; only the fingerprint detects changes."""


class Source(Record):
    """Where the rows of a benchmark are stored, and which of them are used."""

    path: str = Field(min_length=1)
    """A folder or file, "s3://bucket/folder", or a data set of a hub: "hf://BryanW/HumanEdit"."""
    revision: str | None = None
    """The commit of a hub's data set, or a name for the state of a folder; the default is the benchmark's."""
    limit: int | None = Field(default=None, ge=1)
    """The maximum number of rows; None uses all. The choice is always the same, and a smaller limit chooses a part of it. Sessions
    are chosen as a whole."""
    fingerprint: str | None = None
    """The expected fingerprint; None expects nothing. Another fingerprint is an error, because it is another benchmark."""


class TableBenchmark(ABC):
    """A benchmark whose rows are listed once, with images by reference; a `careedit_eval.records.Benchmark`."""

    name: str
    revision: str

    def __init__(self, name: str, source: Source, pinned: str | None = None) -> None:
        """`pinned` is the commit of a hub's data set that is read if `source` names none."""
        self.name, self.source = name, source
        self.path, revision = resolve(source.path, source.revision, pinned)
        self.revision = revision or UNVERSIONED

    def rows(self) -> Iterator[Sample]:
        """See `careedit_eval.records.Benchmark`."""
        return iter(self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def fingerprint(self) -> str:
        """See `careedit_eval.records.Benchmark`."""
        return self._listed[1]

    @property
    def _samples(self) -> tuple[Sample, ...]:
        return self._listed[0]

    @cached_property
    def _listed(self) -> tuple[tuple[Sample, ...], str]:
        """The samples and their fingerprint. Every image is read once, for its hash."""
        samples = tuple(self._read())
        if not samples:
            raise BenchmarkError(f"{self.source.path!r} holds no row of {self.name}; check the path and the options.")
        broken = [why for sample in samples if (why := sample.problem or sample.source.missing) is not None]
        if len(broken) == len(samples):
            raise BenchmarkError(
                f"None of the {len(samples)} rows of {self.name} in {self.source.path!r} can be used; the first: {broken[0]}"
            )
        try:
            found = fingerprint_of(samples)
        except CareEditError as error:
            raise BenchmarkError(f"{self.name} in {self.source.path!r}: {error}") from error
        wanted = self.source.fingerprint
        if wanted is not None and not found.startswith(wanted):
            raise BenchmarkError(
                f"{self.name} in {self.source.path!r} has the fingerprint {found[:16]}, not {wanted[:16]}: its rows "
                "have changed, which makes it another benchmark; take the rows as they were, or state the new one."
            )
        return samples, found

    @abstractmethod
    def _read(self) -> Iterator[Sample]:
        """The chosen samples, in order."""


UNKNOWN = "unknown"
"""The kind of a row whose data set does not name one."""


def group_of(source: PictureRef, name: str) -> str:
    """The group of a row: its source image, or its own `name` if the image is missing."""
    return name if source.sha256 == EMPTY else source.sha256


def taken(rows: Iterable[tuple[str, Row]], limit: int | None) -> list[tuple[str, Row]]:
    """The (name, row) pairs of the first `limit` names by the order of their hashes; None means all.

    Rows stay in their order. A larger limit adds rows and removes none.
    """
    found = list(rows)
    if limit is None:
        return found
    ranked = sorted({name for name, _ in found}, key=lambda name: hashlib.sha256(name.encode("utf-8")).digest())
    kept = set(ranked[:limit])
    return [(name, row) for name, row in found if name in kept]


def distinct_ids(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Ids from (name, content) rows: the name and, if several rows share it, a hash of the content after it.

    Rows that share both get the same id, which `fingerprint_of` refuses.
    """
    counts = Counter(name for name, _ in rows)
    return [
        name if counts[name] == 1 else f"{name}~{hashlib.sha256(content.encode('utf-8')).hexdigest()[:8]}"
        for name, content in rows
    ]
