"""The base of every record: frozen, strict, documented by its attribute docstrings, with one wording of its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from careedit.errors import InputError, ManifestError
from careedit.files import parse_yaml, write_atomic


class BaseRecord(BaseModel):
    """Frozen, no unknown fields, no conversion between types. A field's docstring is its description in every schema.

    Invalid values raise pydantic's `ValidationError`; `error_sentence` words it for users.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Record(BaseRecord):
    """A record of Python code: an unknown field, a missing field and an invalid value raise `InputError`.

    Not strict, because records are also made from JSON, YAML and forms, where a tuple is a list and a number a text.
    """

    model_config = ConfigDict(strict=False, arbitrary_types_allowed=True)

    def __init__(self, **fields: Any) -> None:
        record, known = type(self).__name__, type(self).model_fields
        for name in fields:
            if name not in known and name not in {field.alias for field in known.values()}:
                raise InputError(f"{record} has no field {name!r}; its fields are {', '.join(known)}.", field=name)
        try:
            super().__init__(**fields)
        except ValidationError as error:
            location = error.errors(include_url=False)[0]["loc"]
            raise InputError(error_sentence(error, record), field=str(location[0]) if location else None) from error


class YamlRecord(BaseRecord):
    """A record kept as a YAML file, such as a manifest: strict, and errors are `ManifestError`."""

    @classmethod
    def from_yaml(cls, text: str, where: str) -> Self:
        """Parse `text`; `where` names the file in the `ManifestError` that invalid content raises."""
        data = parse_yaml(text, where, error=ManifestError)
        try:
            # Through JSON, because strict validation accepts a list for a tuple only from JSON.
            return cls.model_validate_json(json.dumps(data, allow_nan=False))
        except ValidationError as error:
            raise ManifestError(error_sentence(error, where)) from error
        except (TypeError, ValueError) as error:
            raise ManifestError(f"{where} has a value that no field accepts ({error}); correct it.") from error

    def to_yaml(self) -> str:
        """The record as YAML text, fields in their declared order."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)

    def write(self, path: Path) -> None:
        """Write the record to `path` as YAML, atomically."""
        write_atomic(path, self.to_yaml())


def error_sentence(error: ValidationError, subject: str) -> str:
    """The first problem of a validation error as a sentence about `subject`, for example "expert.yaml" or "EditRequest"."""
    problem = error.errors(include_url=False)[0]
    field = field_path(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{subject} has no field {field!r}; remove it or correct its spelling."
    if problem["type"] == "missing":
        return f"{subject} needs the field {field!r}, which is missing; add it."
    reason = str(problem["msg"]).removeprefix("Value error, ").rstrip(".")
    of_field = f" for its field {field!r}" if field else ""
    return f"{subject} does not accept {repr(problem['input'])[:80]}{of_field}: {reason[:1].lower()}{reason[1:]}."


def field_path(location: tuple[int | str, ...]) -> str:
    """A field as `base.name` from the location in a pydantic error, "" for the record as a whole.

    For a field of several types, pydantic also names the type that it tried, such as "dict[str,float]"; that is left out.
    """
    names: list[str] = []
    for part in map(str, location):
        if names and part.split("[")[0] in _TYPE_NAMES:
            break
        names.append(part)
    return ".".join(names)


_TYPE_NAMES = frozenset(
    [
        "str",
        "int",
        "float",
        "bool",
        "dict",
        "list",
        "tuple",
        "literal",
        "constrained-str",
        "constrained-int",
        "constrained-float",
        "function-before",
        "function-after",
        "function-wrap",
        "is-instance",
    ]
)


def help_of(record: type[BaseModel], field: str) -> str:
    """The description of a field, for the `--help` of the command line option that sets this field."""
    description = record.model_fields[field].description
    if description is None:
        raise LookupError(f"The field {record.__name__}.{field} has no docstring; write one.")
    return " ".join(description.split())
