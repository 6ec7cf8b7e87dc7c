"""Which column of a table holds what: our own names, those of public datasets, or names that the user gives."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from careedit.errors import InputError

ROLES = ("source", "instruction", "target", "mask", "reference")
"""What a row has. Mask and reference are optional."""
FILE_NAME = "_file_name"
"""Ending of column names in Hugging Face's `imagefolder`: `target_file_name` is the column `target`."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The name of each role's column."""

    source: str
    """Column of the image before the edit."""
    instruction: str
    """Column of the text that says what to change."""
    target: str
    """Column of the image after the edit."""
    mask: str | None = None
    """Column of the mask, which is white or transparent where to edit. Default: no mask."""
    reference: str | None = None
    """Column of an image that the edit takes something from. Default: no reference."""

    def given(self) -> dict[str, str]:
        """Column by role, without roles that have no column."""
        return {role: name for role, name in asdict(self).items() if name is not None}


LAYOUTS: Mapping[str, Columns] = {
    "careedit": Columns("source", "instruction", "target", "mask", "reference"),
    "HumanEdit": Columns("INPUT_IMG", "EDITING_INSTRUCTION", "OUTPUT_IMG", "MASK_IMG"),
    "MagicBrush": Columns("source_img", "instruction", "target_img", "mask_img"),
    "InstructPix2Pix": Columns("input_image", "edit_prompt", "edited_image"),
}
"""Column names that are recognised. HumanEdit's and MagicBrush's are from their dataset cards."""


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


def match_columns(
    names: Collection[str],
    *,
    needed: Collection[str] = ("source", "instruction"),
    own: Collection[str] = (),
    stated: Mapping[str, str] | None = None,
) -> dict[str, str] | None:
    """The column among `names` of each role: those of `stated`, else of the first layout that has all roles in `needed`.

    `own` are further names that a column may have. None if no layout fits.
    """
    plain = _plain(names)
    others = {name: plain[name] for name in own if name in plain} | dict(stated or {})
    for layout in LAYOUTS.values():
        found = {role: plain[name] for role, name in layout.given().items() if name in plain} | others
        if found.keys() >= set(needed):
            return found
    return None


def find_columns(names: Sequence[str], stated: Mapping[str, str] | None = None) -> Columns:
    """The columns among `names` that hold the roles. Columns in `stated` have priority.

    Raises `InputError` if source, instruction or target has no column, or a stated column does not exist.
    """
    stated = stated or {}
    plain = _plain(names)
    for role, name in stated.items():
        if name not in names:
            raise InputError(f"The column {name!r} for the {role} does not exist; the columns are {_listed(names)}.")
    for layout in LAYOUTS.values():
        wanted = replace(layout, **stated).given()
        found = {role: name if role in stated else plain.get(name) for role, name in wanted.items()}
        if all(found.get(role) for role in ROLES[:3]):
            return Columns(**{role: name for role, name in found.items() if name})
    known = "; ".join(f"{name}: {', '.join(layout.given().values())}" for name, layout in LAYOUTS.items())
    raise InputError(
        f"The columns {_listed(names)} do not show which are source, instruction and target; name them, for example "
        f"--columns source=before,instruction=text,target=after, or use known names ({known})."
    )


def _plain(names: Collection[str]) -> dict[str, str]:
    """The columns by their names without `FILE_NAME`."""
    return {name.removesuffix(FILE_NAME) if name != FILE_NAME else name: name for name in names}


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12]) or "(none)"
    return shown if len(names) <= 12 else f"{shown}, and {len(names) - 12} more"
