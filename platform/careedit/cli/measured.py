"""How every benchmark ends: its document in a file where one is wanted, and on stdout as JSON or as a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from careedit.cli.files import write_all
from careedit.cli.output import emit_json, note


def tell(document: Mapping[str, Any], show: Callable[[], None], *, out: Path | None, as_json: bool) -> None:
    """Write the document to `out`, and to stdout: as JSON, or as `show` does."""
    if out is not None:
        write_all({out: json.dumps(document, indent=2, allow_nan=False) + "\n"})
    if as_json:
        emit_json(document)
    else:
        show()


def note_goals(goals: Mapping[str, Mapping[str, Any]]) -> None:
    """A line per goal: what was reached, and whether that is enough; why it was not measured, where it was not."""
    for name, goal in goals.items():
        if goal["value"] is None:
            note(f"{name}: not measured ({goal['goal']}). {goal.get('reason') or ''}".rstrip())
        else:
            note(f"{name}: {goal['value']:.4g} ({goal['goal']}): {'met' if goal['met'] else 'not met'}.")


def goal_cells(goal: Mapping[str, Any] | None) -> tuple[str, str]:
    """Two cells of a table, the goal and its verdict; dashes for a figure without a goal."""
    if goal is None:
        return "-", "-"
    return goal["goal"], {True: "met", False: "not met", None: "not measured"}[goal["met"]]
