"""What a router decides on the benchmark's scenes, and how good its decisions are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from careedit.errors import InputError
from careedit.records import RoutingDecision
from careedit.routing import entropy
from careedit.routing.transformer import calibration_bins, calibration_error
from careedit.stats import SEED, Floats, area_under_roc, bootstrap_mean
from careedit_tiny.bench.quality.rows import Row, gap_recovered
from careedit_tiny.world.samples import Sample

INFEASIBLE_BELOW = 0.5
"""An instruction counts as recognised as infeasible where `RoutingDecision.feasible` is below this, or below the
threshold that the router itself was calibrated to."""
FALSE_ALARMS = 0.02
"""The share of false alarms that `recall_at_false_alarms` allows."""
PERMUTATIONS = 2_000
"""Permutations of a null distribution."""

Decide = Callable[[Sample], RoutingDecision]
"""A router as the benchmark asks it."""


@dataclass(frozen=True)
class Decisions:
    """One router's decisions on several scenes."""

    router: str
    """Kind of the router."""
    decisions: tuple[RoutingDecision, ...]
    """In the scenes' order."""
    seconds: float
    """Wall-clock seconds per decision."""
    threshold: float = INFEASIBLE_BELOW
    """What is less feasible counts as infeasible."""

    @property
    def first(self) -> list[str]:
        """The expert of most weight, per scene."""
        return [max(one.weights, key=lambda name: one.weights[name]) for one in self.decisions]

    @property
    def stated(self) -> list[tuple[str, float]]:
        """The most probable expert and its probability, whether or not it was used: a router may fall back to the base.

        Where a router states no probabilities, the chosen expert and its weight.
        """
        return [max((one.probabilities or one.weights).items(), key=lambda item: item[1]) for one in self.decisions]

    @property
    def feasible(self) -> list[float]:
        """The stated probability that the instruction applies."""
        return [one.feasible for one in self.decisions]


def decide_all(samples: Sequence[Sample], decide: Decide, *, threshold: float = INFEASIBLE_BELOW) -> Decisions:
    """Ask a router about every scene; there must be one at least."""
    started = time.perf_counter()
    decisions = tuple(decide(sample) for sample in samples)
    seconds = (time.perf_counter() - started) / max(1, len(samples))
    return Decisions(decisions[0].router, decisions, seconds, threshold)


def router_report(
    samples: Sequence[Sample],
    decided: Decisions,
    infeasible: Decisions | None,
    competences: Mapping[str, str],
    rows: Mapping[str, Row],
) -> dict[str, Any]:
    """All that is told of one router, as JSON.

    `samples` and `decided` are feasible scenes, `infeasible` the decisions on others (None: there were none);
    `competences` is the competence per expert; `rows` holds this router's own row ("own"), "best_single" and "oracle".
    A decision is right where the chosen expert's competence is the one that the sample's operation needs; calibration is
    of the most probable expert, also where the router then used the base for want of confidence.
    """
    chosen, kinds = decided.first, [sample.kind for sample in samples]
    right = _right(chosen, samples, competences)
    held_out = np.array([sample.held_out_phrasing for sample in samples], bool)
    names, confidence = zip(*decided.stated, strict=True)
    stated, named_right = np.minimum(confidence, 1.0), _right(names, samples, competences)
    own, single, oracle = rows["own"], rows["best_single"], rows["oracle"]
    information = permuted_information(chosen, kinds)
    load = {name: chosen.count(name) / len(chosen) for name in competences}
    return {
        "router": decided.router,
        **_accuracy("seen", right[~held_out]),
        **_accuracy("held_out", right[held_out]),
        "accuracy_by_kind": {
            kind: float(right[[one == kind for one in kinds]].mean()) for kind in dict.fromkeys(kinds)
        },
        "ece": calibration_error(stated, named_right),
        "gap_recovered": gap_recovered(own, single, oracle),
        "regret_to_oracle": oracle.compliance - own.compliance,
        **_feasibility(decided, infeasible),
        "utilisation": load,
        "utilisation_entropy": entropy(list(load.values())),
        "decision_entropy": float(np.mean([one.entropy for one in decided.decisions])),
        "mutual_information": asdict(information),
        "seconds": decided.seconds,
        "calibration": [asdict(one) for one in calibration_bins(stated, named_right)],
        "confusion": {
            kind: {
                name: sum(k == kind and c == name for k, c in zip(kinds, chosen, strict=True)) for name in competences
            }
            for kind in dict.fromkeys(kinds)
        },
    }


def _right(chosen: Sequence[str], samples: Sequence[Sample], competences: Mapping[str, str]) -> Floats:
    pairs = zip(chosen, samples, strict=True)
    return np.array([float(competences[name] == sample.expert) for name, sample in pairs])


def _accuracy(name: str, right: Any) -> dict[str, Any]:
    if right.size == 0:
        return {f"accuracy_{name}": None, f"accuracy_{name}_ci": None, f"accuracy_{name}_count": 0}
    return {
        f"accuracy_{name}": float(right.mean()),
        f"accuracy_{name}_ci": list(bootstrap_mean(right)),
        f"accuracy_{name}_count": int(right.size),
    }


def _feasibility(decided: Decisions, infeasible: Decisions | None) -> dict[str, Any]:
    """How well infeasible instructions are told from feasible ones."""
    alarm = float(np.mean(np.array(decided.feasible) < decided.threshold))
    if infeasible is None:
        return {"infeasible_recall": None, "infeasible_false_alarm": alarm, "infeasible_auc": None}
    doubts, doubted = 1 - np.array(decided.feasible), 1 - np.array(infeasible.feasible)
    return {
        "infeasible_recall": float(np.mean(np.array(infeasible.feasible) < infeasible.threshold)),
        "infeasible_false_alarm": alarm,
        "infeasible_auc": area_under_roc(doubts, doubted),
        "infeasible_recall_at_2_percent": recall_at(doubts, doubted, FALSE_ALARMS),
        "infeasible_count": len(infeasible.feasible),
        "infeasible_threshold": infeasible.threshold,
    }


def mutual_information(first: Sequence[str], second: Sequence[str]) -> float:
    """I(first; second) in nats of two sequences of labels, from their joint counts; 0 = independent."""
    if not first:
        return 0.0
    a, b = _codes(first), _codes(second)
    return _information(a, b)


@dataclass(frozen=True, slots=True)
class Permuted:
    """A figure beside what chance makes of it."""

    value: float
    """The figure."""
    null_mean: float
    """Its mean over permutations: the bias of the estimate under independence."""
    null_high: float
    """Its 95th percentile over permutations."""
    p: float
    """Share of permutations (and the figure itself) that reach it."""


def permuted_information(
    first: Sequence[str], second: Sequence[str], *, permutations: int = PERMUTATIONS, seed: int = SEED
) -> Permuted:
    """Mutual information of two sequences of labels, and the same with one of them shuffled."""
    value = mutual_information(first, second)
    if not first:
        return Permuted(value, 0.0, 0.0, 1.0)
    a, b = _codes(first), _codes(second)
    rng = np.random.default_rng(seed)
    null = np.array([_information(rng.permutation(a), b) for _ in range(permutations)])
    reached = int((null >= value - 1e-12).sum())
    return Permuted(value, float(null.mean()), float(np.quantile(null, 0.95)), (reached + 1) / (permutations + 1))


def recall_at(negatives: ArrayLike, positives: ArrayLike, false_alarms: float) -> float:
    """The largest share of positives above a threshold that at most this share of negatives reaches."""
    low, high = np.asarray(negatives, np.float64), np.asarray(positives, np.float64)
    if low.size == 0 or high.size == 0:
        raise InputError("A recall needs scores of both classes.")
    allowed = int(np.floor(false_alarms * low.size))
    threshold = np.sort(low)[::-1][allowed] if allowed < low.size else -np.inf
    return float((high > threshold).mean())


def _codes(labels: Sequence[str]) -> NDArray[np.int64]:
    return np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _information(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    width = int(b.max()) + 1
    joint: NDArray[Any] = np.bincount(a * width + b, minlength=(int(a.max()) + 1) * width).reshape(-1, width) / a.size
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    return max(0.0, float(special.rel_entr(joint, apart).sum()))
