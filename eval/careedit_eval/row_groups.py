"""The row groups of parquet and Arrow files, wherever fsspec can read them.

Arrow files are read as `datasets` saves them (`save_to_disk`, a stream of record batches) and in Arrow's file format. A batch
takes the place of a row group. Local files are mapped into memory; others are copied to a temporary folder first, because a
stream cannot be read from the middle.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, lru_cache
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from careedit_eval.errors import BenchmarkError, reason_of

SUFFIXES = (".parquet", ".arrow")
"""The endings of the names of files with rows."""
GROUPS_IN_MEMORY = 4
"""The number of columns of row groups that a process caches. Rows are read in order, and the columns of a row together."""
FILES_OPEN = 64
"""The number of Arrow files that a process keeps mapped; a mapped file needs addresses, not memory."""


class ArrowFile:
    """An Arrow file with the members of `pyarrow.parquet.ParquetFile` that are used here."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @cached_property
    def _table(self) -> Any:
        import pyarrow as pa

        files, path = fsspec.core.url_to_fs(self._uri)
        local = path if isinstance(files, LocalFileSystem) else fsspec.open_local(f"simplecache::{self._uri}")
        source = pa.memory_map(local)
        random_access = source.read(6) == b"ARROW1"
        source.seek(0)
        return (pa.ipc.open_file if random_access else pa.ipc.open_stream)(source).read_all()

    @cached_property
    def _batches(self) -> list[Any]:
        return [batch for batch in self._table.to_batches() if batch.num_rows]

    @property
    def schema_arrow(self) -> Any:
        """The Arrow schema of the rows."""
        return self._table.schema

    @property
    def num_row_groups(self) -> int:
        """The number of record batches with rows."""
        return len(self._batches)

    def read_row_group(self, i: int, columns: Sequence[str]) -> Any:
        """Some columns of batch `i`, as an Arrow table."""
        import pyarrow as pa

        return pa.Table.from_batches([self._batches[i].select(list(columns))])


@contextmanager
def opened(uri: str) -> Iterator[Any]:
    """A file of rows, as a `pyarrow.parquet.ParquetFile`. Raises `BenchmarkError`."""
    from pyarrow import parquet

    with ExitStack() as stack:
        try:
            if uri.endswith(".arrow"):
                file: Any = _arrow_file(uri)
                _ = file.num_row_groups
            else:
                file = parquet.ParquetFile(stack.enter_context(fsspec.open(uri, "rb")))
        except Exception as error:  # the errors of file systems and of pyarrow have no common root
            raise unreadable(uri, error) from error
        yield file


def unreadable(uri: str, error: BaseException) -> BenchmarkError:
    """The error of a file whose rows cannot be read."""
    kind = posixpath.splitext(uri)[1].removeprefix(".")
    return BenchmarkError(
        f"The shard {posixpath.basename(uri)!r} cannot be read as {kind} ({reason_of(error)}); get it again."
    )


@lru_cache(maxsize=FILES_OPEN)
def _arrow_file(uri: str) -> ArrowFile:
    return ArrowFile(uri)


@lru_cache(maxsize=GROUPS_IN_MEMORY)
def read_column(uri: str, group: int, column: str) -> Any:
    """One column of a row group, as an Arrow array. Raises `BenchmarkError`."""
    with opened(uri) as file:
        try:
            return file.read_row_group(group, columns=[column]).column(column)
        except Exception as error:  # pyarrow's and the file systems' errors have no common root
            raise unreadable(uri, error) from error
