"""Records of tensors and words as one safetensors file each, so that training data is made once.

A record is a frozen dataclass without slots whose fields are tensors and tuples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from careedit.files import atomic_path

Record = TypeVar("Record")


def save_record(record: Any, path: Path, key: str) -> None:
    """Write a record through a temporary name. `key` says what the record was made of; `load_record` compares it."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    tensors = {name: value.contiguous() for name, value in values.items() if isinstance(value, Tensor)}
    words = {name: json.dumps(value) for name, value in values.items() if name not in tensors}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={**words, "key": key})


def load_record(kind: type[Record], path: Path, key: str) -> Record | None:
    """The record of class `kind` in a file; None if the file does not exist or was written with another key."""
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        words = file.metadata()
        if words.pop("key", None) != key:
            return None
        values: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    return kind(**values, **{name: tuple(json.loads(value)) for name, value in words.items()})


def join_records(one: Record, other: Record, *, indices: Mapping[str, str], same: Sequence[str] = ()) -> Record:
    """Both records' entries in one.

    `indices` names the fields that hold positions (or -1) in another field, which move by its length in `one`; fields
    in `same` are equal in both and stay.
    """
    values: dict[str, Any] = {}
    for field in fields(one):  # type: ignore[arg-type]
        first, second = getattr(one, field.name), getattr(other, field.name)
        if field.name in indices:
            second = torch.where(second >= 0, second + len(getattr(one, indices[field.name])), -1)
        if field.name in same:
            values[field.name] = first
        else:
            values[field.name] = torch.cat([first, second]) if isinstance(first, Tensor) else first + second
    return type(one)(**values)
