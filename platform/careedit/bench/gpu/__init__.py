"""`careedit bench gpu`: a base of real size with random weights, measured on a GPU within minutes."""

from careedit.bench.gpu.bases import NAMES, build_base
from careedit.bench.gpu.cases import GOALS, Settings, bench_gpu

__all__ = ["GOALS", "NAMES", "Settings", "bench_gpu", "build_base"]
