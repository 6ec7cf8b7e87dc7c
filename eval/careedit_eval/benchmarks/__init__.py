"""Benchmarks: public data sets by their own columns, and the tiny world in the same ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from careedit import plugins
from careedit_eval.benchmarks.anyedit import AnyEdit, AnyEditConfig
from careedit_eval.benchmarks.base import Source, TableBenchmark
from careedit_eval.benchmarks.emu_edit import EmuEdit, EmuEditConfig
from careedit_eval.benchmarks.folder import FolderBenchmark, FolderConfig
from careedit_eval.benchmarks.gedit import GEdit, GEditConfig
from careedit_eval.benchmarks.humanedit import HumanEdit, HumanEditConfig
from careedit_eval.benchmarks.imgedit import ImgEdit, ImgEditConfig
from careedit_eval.benchmarks.kris import Kris, KrisConfig
from careedit_eval.benchmarks.magicbrush import MagicBrush, MagicBrushConfig
from careedit_eval.benchmarks.rise import Rise, RiseConfig
from careedit_eval.errors import BenchmarkError
from careedit_eval.records import Benchmark

__all__ = [
    "BENCHMARKS",
    "AnyEdit",
    "AnyEditConfig",
    "EmuEdit",
    "EmuEditConfig",
    "FolderBenchmark",
    "FolderConfig",
    "GEdit",
    "GEditConfig",
    "HumanEdit",
    "HumanEditConfig",
    "ImgEdit",
    "ImgEditConfig",
    "Kris",
    "KrisConfig",
    "MagicBrush",
    "MagicBrushConfig",
    "Rise",
    "RiseConfig",
    "Source",
    "TableBenchmark",
    "benchmark_names",
    "find_benchmark",
    "load_benchmark",
]

BENCHMARKS: Mapping[str, tuple[Callable[..., Source], Callable[..., Benchmark]]] = {
    "humanedit": (HumanEditConfig, HumanEdit),
    "magicbrush": (MagicBrushConfig, MagicBrush),
    "emu_edit": (EmuEditConfig, EmuEdit),
    "gedit": (GEditConfig, GEdit),
    "imgedit": (ImgEditConfig, ImgEdit),
    "kris": (KrisConfig, Kris),
    "rise": (RiseConfig, Rise),
    "anyedit": (AnyEditConfig, AnyEdit),
    "folder": (FolderConfig, FolderBenchmark),
}
"""careedit's own benchmarks: the record of its options, and what is built from it."""


def benchmark_names() -> tuple[str, ...]:
    """The names that a suite may use: careedit's benchmarks and those of installed packages."""
    return (*BENCHMARKS, *plugins.names(plugins.BENCHMARKS))


def find_benchmark(name: str) -> tuple[Callable[..., Source], Callable[..., Benchmark]]:
    """The options record and the builder of a benchmark. Raises `BenchmarkError` for an unknown name."""
    found: tuple[Callable[..., Source], Callable[..., Benchmark]] | None = BENCHMARKS.get(name) or plugins.load(
        plugins.BENCHMARKS, name, error=BenchmarkError
    )
    if found is None:
        raise BenchmarkError(f"The benchmark {name!r} does not exist; choose from {', '.join(benchmark_names())}.")
    return found


def load_benchmark(name: str, /, **options: Any) -> Benchmark:
    """A benchmark by its name and options; nothing is read before its rows are asked for, but the hub may be asked which commit
    is its newest. Raises `InputError`."""
    config, build = find_benchmark(name)
    return build(config(**options))
