"""What users write in tables: lines and cells, the files that they name, and which column holds what."""

from careedit.tabular.cells import find_file, is_missing, lines_of, weights_of, words_of
from careedit.tabular.columns import FILE_NAME, LAYOUTS, ROLES, Columns, find_columns, match_columns, parse_columns
from careedit.tabular.tables import (
    METADATA,
    TABLES,
    BrokenRowError,
    ParquetTable,
    Table,
    TextTable,
    open_table,
    picture_of,
)

__all__ = [
    "FILE_NAME",
    "LAYOUTS",
    "METADATA",
    "ROLES",
    "TABLES",
    "BrokenRowError",
    "Columns",
    "ParquetTable",
    "Table",
    "TextTable",
    "find_columns",
    "find_file",
    "is_missing",
    "lines_of",
    "match_columns",
    "open_table",
    "parse_columns",
    "picture_of",
    "weights_of",
    "words_of",
]
