"""Which column of a user's rows holds what: our own names, those of public datasets, or names that the user states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from careedit.errors import InputError

ROLES = ("source", "instruction", "target", "mask", "reference")
"""What a row holds; the last two are optional."""
FILE_NAME = "_file_name"
"""Ending of the columns that name files in Hugging Face's `imagefolder`: `target_file_name` is the column `target`."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The column of each role."""

    source: str
    """The picture before the edit."""
    instruction: str
    """What to change, in words."""
    target: str
    """The picture after it."""
    mask: str | None = None
    """Where to edit: white, or transparent."""
    reference: str | None = None
    """A picture that the edit takes something from."""

    def given(self) -> dict[str, str]:
        """Column per role, roles without one left out."""
        return {role: name for role, name in asdict(self).items() if name is not None}


LAYOUTS: Mapping[str, Columns] = {
    "careedit": Columns("source", "instruction", "target", "mask", "reference"),
    "HumanEdit": Columns("INPUT_IMG", "EDITING_INSTRUCTION", "OUTPUT_IMG", "MASK_IMG"),
    "MagicBrush": Columns("source_img", "instruction", "target_img", "mask_img"),
    "InstructPix2Pix": Columns("input_image", "edit_prompt", "edited_image"),
}
"""Column names that are recognised; HumanEdit's and MagicBrush's are those of their dataset cards."""


def parse_columns(text: str) -> dict[str, str]:
    """ "source=before,target=after" as a mapping of role to column; raises `InputError`."""
    stated: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        role, _, name = (piece.strip() for piece in part.partition("="))
        if role not in ROLES or not name or role in stated:
            raise InputError(
                f"The columns {text!r} cannot be read; write ROLE=COLUMN,... with each role once: {', '.join(ROLES)}."
            )
        stated[role] = name
    return stated


def find_columns(names: Sequence[str], stated: Mapping[str, str] | None = None) -> Columns:
    """The columns among `names` that hold the roles; what is `stated` comes first.

    Raises `InputError` where source, instruction or target has no column, or a stated column is not there.
    """
    stated = stated or {}
    plain = {name.removesuffix(FILE_NAME) if name != FILE_NAME else name: name for name in names}
    for role, name in stated.items():
        if name not in names:
            raise InputError(f"There is no column {name!r} for the {role}; the columns are {_listed(names)}.")
    for layout in LAYOUTS.values():
        wanted = replace(layout, **stated).given()
        found = {role: name if role in stated else plain.get(name) for role, name in wanted.items()}
        if all(found.get(role) for role in ROLES[:3]):
            return Columns(**{role: name for role, name in found.items() if name})
    known = "; ".join(f"{name}: {', '.join(layout.given().values())}" for name, layout in LAYOUTS.items())
    raise InputError(
        f"The columns {_listed(names)} do not tell source, instruction and target; name them, e.g. "
        f"--columns source=before,instruction=text,target=after, or use known names ({known})."
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12]) or "(none)"
    return shown if len(names) <= 12 else f"{shown}, and {len(names) - 12} more"
