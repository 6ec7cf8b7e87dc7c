"""What runs in a decoder process: one foreign picture at a time, within limits of time and memory. No torch, no Ray."""

from __future__ import annotations

import io
import os
import resource
from pathlib import Path
from typing import Any, Literal

from PIL import Image, PngImagePlugin

from careedit.images import Limits, decode_image, decode_mask, marks_of

Reading = Literal["image", "mask", "kept"]
"""A picture, a mask of OpenAI's kind, or a picture that this server kept as a PNG."""

CPU_S = 5.0
"""Seconds of CPU for any picture."""
PIXELS_PER_S = 4e6
"""Pixels that another second is given for; a slow machine decodes ten times as many."""
MEMORY = 2 * 2**30
"""Bytes of address space that decoding may add to the process."""

_ready = False


def decode(data: bytes, reading: Reading, limits: Limits) -> Image.Image:
    """The picture of a file, with its marks. Raises `InputError` and kin."""
    if reading == "mask":
        return decode_mask(data, white_is_edit=False, limits=limits)
    image = decode_image(data, limits=limits)
    if reading == "kept":  # its own marks were decoded away; they stand in the file that the server wrote
        with PngImagePlugin.PngImageFile(io.BytesIO(data)) as opened:
            image.info |= marks_of(opened)
    return image


def decode_exchange(path: str, reading: Reading, limits: Limits, pixels: int) -> tuple[str, tuple[int, int], Any]:
    """`decode` of the file at `path`, which the pixels replace; returns mode, size and marks.

    `path` is memory that the parent shares: a pipe would cost it more than decoding does.
    """
    prepare(CPU_S + pixels / PIXELS_PER_S)
    with open(path, "r+b", buffering=0) as exchange:
        image = decode(exchange.read(), reading, limits)
        exchange.seek(0)
        view = memoryview(image.tobytes())
        while view:
            view = view[exchange.write(view) :]
        exchange.truncate()
    return image.mode, image.size, image.info


def prepare(cpu_s: float = CPU_S) -> int:
    """Limit this process to `cpu_s` more seconds of CPU; the kernel ends it after that. Returns the process's id."""
    global _ready
    if not _ready:
        from pi_heif import options
        from PIL import AvifImagePlugin

        options.DECODE_THREADS = AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        statm = Path("/proc/self/statm")
        if statm.exists():  # Linux; macOS has no limit of address space
            held = int(statm.read_text().split()[0]) * resource.getpagesize()
            _lower(resource.RLIMIT_AS, held + MEMORY)
        _ready = True
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + cpu_s) + 1)
    return os.getpid()


def _lower(which: int, soft: int) -> None:
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
