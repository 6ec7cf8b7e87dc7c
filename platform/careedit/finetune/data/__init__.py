"""Own training rows: source, instruction, target, and optionally mask and reference."""

from careedit.finetune.data.check import Plan, Planned, Problem, check_rows, refusal, write_problems
from careedit.finetune.data.columns import LAYOUTS, Columns, find_columns, parse_columns
from careedit.finetune.data.rows import Align, BadRowError, Row, RowRules, read_row, row_item, row_job
from careedit.finetune.data.tables import Table, open_table

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
