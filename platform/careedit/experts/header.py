"""The header of a safetensors file: names, types and shapes, checked before a tensor is read.

Format: https://huggingface.co/docs/safetensors. 8 bytes little-endian header length, a JSON object, then the data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from careedit.errors import AdapterError

MAX_HEADER_BYTES = 100_000_000
"""The limit of the reference implementation."""

WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes per element of the number formats that an adapter may use."""

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of one tensor."""

    dtype: str
    """"F64", "F32", "F16" or "BF16"."""
    shape: tuple[int, ...]
    """Its shape."""


@dataclass(frozen=True)
class AdapterHeader:
    """All tensors of a file, none of them read."""

    tensors: Mapping[str, TensorInfo]
    """By key, in the order of the data."""
    metadata: Mapping[str, str]
    """The free text fields of the header."""


def read_header(path: Path) -> AdapterHeader:
    """Reads and checks the header of `path`: a pickle, a truncated or an inconsistent file raises `AdapterError`."""
    if path.suffix != ".safetensors":
        raise AdapterError(f"{path.name} is not a .safetensors file; other formats can run code when they are opened.")
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                # A length may start with a pickle's bytes too (640 is 80 02), so only an impossible one is looked at.
                if start.startswith(_PICKLES):
                    raise AdapterError(f"{path.name} is a pickle under a .safetensors name; convert it to safetensors.")
                raise AdapterError(f"{path.name} is not a whole safetensors file; get it again.")
            text = stream.read(length)
    except OSError as error:
        raise AdapterError(f"{path.name} cannot be read ({error.strerror}); check that it is there.") from error
    try:
        fields = json.loads(text)
        metadata = fields.pop("__metadata__", None) or {}
        entries = {key: (v["dtype"], tuple(v["shape"]), tuple(v["data_offsets"])) for key, v in fields.items()}
        well_formed = all(isinstance(n, int) and n >= 0 for _, s, o in entries.values() for n in (*s, *o))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise AdapterError(f"{path.name} has a broken safetensors header; get it again.") from error
    if not well_formed or not isinstance(metadata, dict):
        raise AdapterError(f"{path.name} has a broken safetensors header; get it again.")
    end = 0
    for key, (dtype, shape, offsets) in sorted(entries.items(), key=lambda item: item[1][2]):
        if dtype not in WIDTHS:
            raise AdapterError(
                f"{path.name} stores {key!r} as {dtype}; an adapter holds {', '.join(WIDTHS)} only. Export it so."
            )
        if len(offsets) != 2 or offsets[0] != end or offsets[1] - end != math.prod(shape) * WIDTHS[dtype]:
            raise AdapterError(f"{path.name} has overlapping or missing tensors in its header; get it again.")
        end = offsets[1]
    if 8 + length + end != size:
        raise AdapterError(f"{path.name} has {size:,} bytes where {8 + length + end:,} are due; get it again.")
    ordered = sorted(entries.items(), key=lambda item: item[1][2])
    tensors = {key: TensorInfo(dtype, shape) for key, (dtype, shape, _) in ordered}
    return AdapterHeader(tensors=tensors, metadata={str(k): str(v) for k, v in metadata.items()})
