"""Reads the prompts of a judge from a file of the user, as published repositories write them."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from careedit.errors import InputError
from careedit.files import parse_yaml


def read_prompts(path: str) -> Mapping[str, str]:
    """The prompts by name: the texts of a JSON or YAML object, or the texts that a Python file assigns to names.

    A Python file is parsed and never executed. Raises `InputError`.
    """
    file = Path(path).expanduser()
    readers: Mapping[str, Callable[[str], Any]] = {
        ".json": json.loads,
        ".yaml": partial(parse_yaml, where=f"The prompts {path!r}"),
        ".py": _assigned,
    }
    read = readers.get(file.suffix)
    if read is None:
        raise InputError(f"{path!r} is not a file of prompts; give a .json, .yaml or .py file.")
    try:
        found: Any = read(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"The prompts {path!r} cannot be read ({error.strerror}); check the path.") from error
    except (ValueError, RecursionError, SyntaxError) as error:
        raise InputError(
            f"The prompts {path!r} cannot be read ({type(error).__name__}); get the file again."
        ) from error
    texts = (
        {str(name): text for name, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}
    )
    if not texts:
        raise InputError(f"{path!r} holds no prompts, which are texts with names; give the published file.")
    return texts


def _assigned(source: str) -> dict[str, str]:
    """The texts that a module assigns to single names at its top level."""
    return {
        target.id: node.value.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
