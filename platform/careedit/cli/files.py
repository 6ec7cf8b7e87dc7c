"""The files that a command writes: checked before the work is done, and then all of them written, or none."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from careedit.errors import InputError
from careedit.images import save_image

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""What `save_image` writes; looked at here too, because an edit takes longer than a look at a name."""


def numbered(path: Path, count: int) -> list[Path]:
    """`path` itself for one file; for several, `name-1.png`, `name-2.png`, ... beside it."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(1, count + 1)]


def check_pictures(paths: Iterable[Path]) -> None:
    """Raises `InputError` for a name whose suffix is no picture format that is written."""
    for path in paths:
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            raise InputError(f"The output {str(path)!r} has no suffix that names a format; use .png, .jpg or .webp.")


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raises `InputError` where an output could not be written, or would replace an input or another output."""
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


def write_all(files: Mapping[Path, Image.Image | str]) -> None:
    """Write pictures and texts, each to its path: first under temporary names beside them, then all are renamed.

    So a disk that runs full leaves what was there before. Raises `InputError`.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            staged[path] = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
            try:
                if isinstance(content, str):
                    staged[path].write_text(content, encoding="utf-8")
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


def _same(output: Path, source: Path) -> bool:
    """Whether both are one file, be it through links or other spellings."""
    if output.exists() and source.exists():
        return output.samefile(source)
    return output.resolve() == source.resolve()
