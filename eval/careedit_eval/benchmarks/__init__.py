"""Benchmarks: public data sets by their own columns, and the tiny world in the same ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from careedit_eval.benchmarks.base import Source, TableBenchmark
from careedit_eval.benchmarks.emu_edit import EmuEdit, EmuEditConfig
from careedit_eval.benchmarks.folder import FolderBenchmark, FolderConfig
from careedit_eval.benchmarks.humanedit import HumanEdit, HumanEditConfig
from careedit_eval.benchmarks.magicbrush import MagicBrush, MagicBrushConfig
from careedit_eval.errors import BenchmarkError
from careedit_eval.records import Benchmark
from careedit_tiny.evaluation.humanedit import TinyHumanEdit, TinyHumanEditConfig

__all__ = [
    "BENCHMARKS",
    "EmuEdit",
    "EmuEditConfig",
    "FolderBenchmark",
    "FolderConfig",
    "HumanEdit",
    "HumanEditConfig",
    "MagicBrush",
    "MagicBrushConfig",
    "Source",
    "TableBenchmark",
    "TinyHumanEdit",
    "TinyHumanEditConfig",
    "load_benchmark",
]

BENCHMARKS: Mapping[str, tuple[Callable[..., Source], Callable[..., Benchmark]]] = {
    "humanedit": (HumanEditConfig, HumanEdit),
    "magicbrush": (MagicBrushConfig, MagicBrush),
    "emu_edit": (EmuEditConfig, EmuEdit),
    "folder": (FolderConfig, FolderBenchmark),
    "tiny_humanedit": (TinyHumanEditConfig, TinyHumanEdit),
}
"""What a suite may name: the record of its options, and what is built from it."""


def load_benchmark(name: str, /, **options: Any) -> Benchmark:
    """A benchmark by its name and options; nothing is read before its rows are asked for, but the hub may be asked which commit
    is its newest. Raises `InputError`."""
    if name not in BENCHMARKS:
        raise BenchmarkError(f"There is no benchmark {name!r}; choose from {', '.join(BENCHMARKS)}.")
    config, build = BENCHMARKS[name]
    return build(config(**options))
