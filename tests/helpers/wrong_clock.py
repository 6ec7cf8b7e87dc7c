"""A time of day that a test moves, for the processes that it starts with `environment`: see wrong_clock.c."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest


class WrongClock:
    """The clock of the processes that preload the library; right at first."""

    def __init__(self, folder: Path) -> None:
        """Compiles the library into `folder`."""
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.fail("No C compiler is on this machine; run apt-get install gcc libc6-dev.", pytrace=False)
        library, self._file = folder / "wrong_clock.so", folder / "wrong_clock"
        self.move(0)
        source = Path(__file__).with_suffix(".c")
        subprocess.run([compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source], check=True)
        self.environment = {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(self._file)}

    def move(self, seconds: int) -> None:
        """Set the clock this far ahead of the right time, or behind it."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:  # in place: processes have it mapped
            file.write(struct.pack("=q", seconds))
