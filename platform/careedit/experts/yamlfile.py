"""Strict records kept as YAML files: manifests and expert sets."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from careedit.errors import ManifestError

MAX_YAML_BYTES = 1 << 20
"""A manifest is a page of text; anything larger is not one."""


class YamlRecord(BaseModel):
    """Base of the YAML records: frozen, no coercion between types, and an unknown field is refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def from_yaml(cls, text: str, where: str) -> Self:
        """Parses `text`; `where` names the file in the `ManifestError` that any flaw raises."""
        if len(text.encode("utf-8")) > MAX_YAML_BYTES:
            raise ManifestError(f"{where} is larger than {MAX_YAML_BYTES:,} bytes; it is not a manifest.")
        try:
            data = yaml.load(text, Loader=_StrictLoader)
        except yaml.YAMLError as error:
            raise ManifestError(f"{where} is not valid YAML: {' '.join(str(error).split())}.") from error
        if not isinstance(data, dict):
            raise ManifestError(f"{where} must hold fields and values; its top level is {type(data).__name__}.")
        try:
            # Through JSON, because strict validation takes a list for a tuple only from JSON.
            return cls.model_validate_json(json.dumps(data, allow_nan=False))
        except ValidationError as error:
            raise ManifestError(f"{where}: {flaw_sentence(error, cls.__name__)}") from error
        except (TypeError, ValueError) as error:
            raise ManifestError(f"{where} holds a value that no field takes: {error}.") from error

    def to_yaml(self) -> str:
        """The record as YAML text, fields in their declared order."""
        data = self.model_dump(mode="json")
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)

    def write(self, path: Path) -> None:
        """Writes the record to `path` through a temporary name."""
        write_atomic(path, self.to_yaml().encode("utf-8"))


def write_atomic(path: Path, data: bytes) -> None:
    """Writes `data` under a temporary name beside `path`, then renames it, so that no reader sees half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that also refuses what hides mistakes or blows up: repeated keys and aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed here")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.YAMLError(f"the field name {key!r} is not text")
            if key in seen:
                raise yaml.YAMLError(f"the field {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def flaw_sentence(error: ValidationError, what: str) -> str:
    """The first flaw of a validation report, as one sentence."""
    flaw = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in flaw["loc"]) or what
    if flaw["type"] == "extra_forbidden":
        return f"there is no field {field!r}; remove it or correct its spelling."
    if flaw["type"] == "missing":
        return f"the field {field!r} is missing; add it."
    reason = str(flaw["msg"]).removeprefix("Value error, ")
    return f"the field {field!r} is {str(flaw['input'])[:80]!r}: {reason[0].lower()}{reason[1:].rstrip('.')}."
