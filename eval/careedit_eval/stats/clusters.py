"""The mean over rows that share source images, its standard error and its degrees of freedom.

Rows of one source image (several instructions or seeds) are not independent, so images are the clusters. The mean is that
of the rows, which is a ratio of sums over images. Images may have unequal numbers of rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from careedit.errors import InputError

Floats = NDArray[np.float64]


class Clusters:
    """Values [n] in clusters (labels [n]); by default, each row is a cluster.

    Raises `InputError` if there are no values, if a value is not finite, or if the number of labels differs.
    """

    def __init__(self, values: ArrayLike, labels: Sequence[Hashable] | None = None) -> None:
        self.values: Floats = np.asarray(values, np.float64)
        if self.values.ndim != 1 or self.values.size == 0:
            raise InputError("An interval needs one or more values; give the rows that were scored.")
        if not np.isfinite(self.values).all():
            raise InputError("A value is not a finite number; record an error as an error row, not as NaN.")
        if labels is not None and len(labels) != self.values.size:
            raise InputError(f"{self.values.size} values came with {len(labels)} clusters; give one cluster per value.")
        codes: dict[Hashable, int] = {}
        self.index = (
            np.arange(self.values.size)
            if labels is None
            else np.array([codes.setdefault(label, len(codes)) for label in labels])
        )
        """The cluster of each row, numbered in the order of appearance."""
        self.sums = self.total(self.values)
        """The sum of the values per cluster."""
        self.counts = self.total(np.ones_like(self.values))
        """The number of rows per cluster."""

    @property
    def size(self) -> int:
        """The number of clusters."""
        return self.sums.size

    @property
    def mean(self) -> float:
        """The mean over the rows."""
        return float(self.values.sum() / self.values.size)

    def total(self, values: Floats) -> Floats:
        """The sum of row values [n] per cluster."""
        return np.bincount(self.index, weights=values).astype(np.float64)

    @cached_property
    def error(self) -> float:
        """The standard error of the mean, for two or more clusters.

        CR2 (Bell & McCaffrey, Surv. Methodol. 28, 2002). For clusters of one size it is unbiased, and equals the standard
        deviation of their means over the root of their number.
        """
        return float(np.sqrt((self.residuals**2 / (1 - self._weights)).sum()) / self.values.size)

    @cached_property
    def freedom(self) -> float:
        """The degrees of freedom of the error, by Satterthwaite; for clusters of one size, their number - 1.

        It is conservative: clusters count alike whatever their number of rows, as if their rows had equal values.
        """
        weights = self._weights
        each = weights**2 / (1 - weights)
        # The error's square is y'Ay of the cluster means y; with D = diag(each), A = D - each w' - w each' + sum(each) w w'.
        outer = np.stack([each, weights])
        middle = np.array([[0.0, -1.0], [-1.0, each.sum()]])
        inner = middle @ (outer @ outer.T)
        trace = each.sum() - 2 * (each * weights).sum() + each.sum() * (weights**2).sum()
        square = (each**2).sum() + 2 * np.trace(middle @ (outer * each) @ outer.T) + np.trace(inner @ inner)
        return float(trace**2 / square)

    @cached_property
    def skew(self) -> float:
        """The skewness of the clusters' parts in the mean, over the root of their number; 0 for fewer than three."""
        n, parts = self.size, self.residuals
        spread = float((parts**2).mean())
        if n < 3 or spread <= 0:
            return 0.0
        return float((parts**3).mean() / spread**1.5 * np.sqrt(n - 1) / (n - 2))

    @cached_property
    def residuals(self) -> Floats:
        """The sum of each cluster above its share of the mean."""
        return self.sums - self.mean * self.counts

    @property
    def _weights(self) -> Floats:
        return self.counts / self.values.size

    def design_effect(self, changed: int) -> float:
        """The variance of the mean over that of independent rows; 1 or more.

        Few changed clusters do not show how similar their rows are. So the estimate is averaged with the worst case, equal rows,
        which has the weight of `PRIOR` changed clusters.
        """
        rows = self.values.size
        alike = float((self.counts**2).sum() / rows)
        alone = float(((self.values - self.mean) ** 2).sum() / rows**2)
        seen = self.error**2 / alone if alone > 0 else alike
        return max(1.0, (changed * seen + PRIOR * alike) / (changed + PRIOR))


PRIOR = 2
"""The weight of the worst case in a design effect, in changed clusters."""


def cluster_means(values: ArrayLike, labels: Sequence[Hashable] | None = None) -> Floats:
    """The mean of `values` [n] per cluster, in the order in which the clusters appear."""
    found = Clusters(values, labels)
    return np.asarray(found.sums / found.counts, np.float64)
