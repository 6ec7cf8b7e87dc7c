"""Own training rows: source, instruction, target, and optionally mask and reference."""

from careedit.finetune.data.check import Plan, Planned, Problem, check_rows, refusal, write_problems
from careedit.finetune.data.rows import Align, BadRowError, Row, RowRules, read_row, row_item, row_job
from careedit.tabular import LAYOUTS, Columns, Table, find_columns, open_table, parse_columns

__all__ = [
    "LAYOUTS",
    "Align",
    "BadRowError",
    "Columns",
    "Plan",
    "Planned",
    "Problem",
    "Row",
    "RowRules",
    "Table",
    "check_rows",
    "find_columns",
    "open_table",
    "parse_columns",
    "read_row",
    "refusal",
    "row_item",
    "row_job",
    "write_problems",
]
