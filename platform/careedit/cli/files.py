"""The files that a command writes: checked before the work starts, then all of them written, or none.

The reports of all benchmarks are written here too: a JSON document to a file or to stdout, or a table.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from careedit.cli.output import emit_json, note
from careedit.errors import InputError
from careedit.images import save_image
from careedit.images.save import SUFFIXES


def numbered(path: Path, count: int) -> list[Path]:
    """`path` itself for one file; for several, `name-1.png`, `name-2.png`, ... in the same folder."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(1, count + 1)]


def check_pictures(paths: Iterable[Path]) -> None:
    """Raises `InputError` for a name whose suffix is not one of `SUFFIXES`, before the edit, so that it costs no time."""
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"The output {str(path)!r} has no suffix of an image format; use .png, .jpg or .webp.")


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raises `InputError` if an output cannot be written, or would replace an input or another output."""
    sources = list(inputs)
    seen: set[Path] = set()
    for path in outputs:
        if path.is_dir():
            raise InputError(f"The output {str(path)!r} is a folder; give a file name.")
        if not path.parent.is_dir():
            raise InputError(f"The folder {str(path.parent)!r} of the output does not exist; create it first.")
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"The folder {str(path.parent)!r} of the output cannot be written to; choose another.")
        for source in sources:
            if _same(path, source):
                raise InputError(f"The output {str(path)!r} would replace the input {source.name!r}; name another.")
        if path.resolve() in seen:
            raise InputError(f"Two outputs would be written to {str(path)!r}; give them different names.")
        seen.add(path.resolve())


def write_all(files: Mapping[Path, Image.Image | bytes | str]) -> None:
    """Write images, files and texts to their paths: first under temporary names in the same folders, then all are renamed.

    A full disk therefore leaves the old files as they were. Raises `InputError`.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            staged[path] = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
            try:
                if isinstance(content, str):
                    staged[path].write_text(content, encoding="utf-8")
                elif isinstance(content, bytes):
                    staged[path].write_bytes(content)
                else:
                    save_image(content, staged[path])
            except (OSError, InputError) as error:
                reason = (error.strerror if isinstance(error, OSError) else None) or "the disk may be full"
                raise InputError(f"The output {str(path)!r} cannot be written ({reason}); choose another.") from error
        for path, temporary in staged.items():
            os.replace(temporary, path)
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def write_report(document: Mapping[str, Any], show: Callable[[], None], *, out: Path | None, as_json: bool) -> None:
    """Write the document to `out`, and to stdout: as JSON, or as `show` does."""
    if out is not None:
        write_all({out: json.dumps(document, indent=2, allow_nan=False) + "\n"})
    if as_json:
        emit_json(document)
    else:
        show()


def note_goals(goals: Mapping[str, Mapping[str, Any]]) -> None:
    """Write one line per goal to stderr: the value and whether it meets the goal, or why it was not measured."""
    for name, goal in goals.items():
        if goal["value"] is None:
            note(f"{name}: not measured ({goal['goal']}). {goal.get('reason') or ''}".rstrip())
        else:
            note(f"{name}: {goal['value']:.4g} ({goal['goal']}): {'met' if goal['met'] else 'not met'}.")


def goal_cells(goal: Mapping[str, Any] | None) -> tuple[str, str]:
    """Two cells of a table: the goal and its verdict. A figure without a goal gets dashes."""
    if goal is None:
        return "-", "-"
    return goal["goal"], {True: "met", False: "not met", None: "not measured"}[goal["met"]]


def _same(output: Path, source: Path) -> bool:
    """Whether both are the same file, also through links or other spellings."""
    if output.exists() and source.exists():
        return output.samefile(source)
    return output.resolve() == source.resolve()
