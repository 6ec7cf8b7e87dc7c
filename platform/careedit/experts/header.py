"""The header of a safetensors file: names, types and shapes, checked before a tensor is read.

The safetensors library checks the format (https://huggingface.co/docs/safetensors): the header's length and JSON, each
tensor's bytes against its type and shape, no gaps, no overlaps, and the file's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from careedit.errors import AdapterError

DTYPES = ("F64", "F32", "F16", "BF16")
"""Number formats that an adapter may use."""

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True)
class AdapterHeader:
    """What the header says of all tensors of a file."""

    tensors: Mapping[str, tuple[int, ...]]
    """Each tensor's shape by its key, in the order of the data."""
    metadata: Mapping[str, str]
    """The free text fields of the header."""


def read_header(path: Path) -> AdapterHeader:
    """Read and check the header of `path`; a pickle, a truncated or an inconsistent file raises `AdapterError`."""
    if path.suffix != ".safetensors":
        raise AdapterError(f"{path.name} is not a .safetensors file; other formats can run code when they are opened.")
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
        with safe_open(path, framework="numpy") as file:  # maps the file, and reads only its header
            tensors = {}
            for key in file.offset_keys():
                entry = file.get_slice(key)
                if entry.get_dtype() not in DTYPES:
                    raise AdapterError(
                        f"{path.name} stores {key!r} as {entry.get_dtype()}; an adapter holds {', '.join(DTYPES)} only. "
                        "Convert it to one of them."
                    )
                tensors[key] = tuple(entry.get_shape())
            return AdapterHeader(tensors=tensors, metadata=file.metadata() or {})
    except OSError as error:
        raise AdapterError(f"{path.name} cannot be read ({error.strerror}); check that it is there.") from error
    except SafetensorError as error:
        # Only after safetensors refuses it: the length of a good header may start with a pickle's bytes (640 is 80 02).
        if start.startswith(_PICKLES):
            raise AdapterError(f"{path.name} is a pickle named .safetensors; convert it to safetensors.") from error
        raise AdapterError(f"{path.name} is not a valid safetensors file ({error}); get it again.") from error
