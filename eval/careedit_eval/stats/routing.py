"""How good the decisions of a router are: accuracy, calibration, regret to the oracle, and who was chosen for what."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from careedit.errors import InputError
from careedit.records import RoutingDecision
from careedit.routing import entropy
from careedit.routing.transformer import calibration_bins, calibration_error
from careedit.stats import Floats, area_under_roc, bootstrap_mean
from careedit_eval.stats.information import permuted_information

INFEASIBLE_BELOW = 0.5
"""The default threshold of `RoutingDecision.feasible`: below it, an instruction counts as recognised as infeasible. A
router that was calibrated brings its own threshold."""
FALSE_ALARMS = 0.02
"""The share of false alarms that `infeasible_recall_at_2_percent` allows."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Decisions:
    """The decisions of one router on several samples."""

    router: str
    """The kind of router, as `RoutingDecision.router`."""
    decisions: tuple[RoutingDecision, ...]
    """One decision per sample, in the order of the samples."""
    seconds: float
    """Mean wall-clock seconds per decision."""
    threshold: float = INFEASIBLE_BELOW
    """An instruction whose `feasible` is below this counts as infeasible."""

    @property
    def first(self) -> list[str]:
        """The expert with the largest weight, per sample."""
        return [max(one.weights, key=lambda name: one.weights[name]) for one in self.decisions]

    @property
    def stated(self) -> list[tuple[str, float]]:
        """The most probable expert and its probability, even if the router then fell back to the base model.

        A router that states no probabilities is represented by its chosen expert and the weight.
        """
        return [max((one.probabilities or one.weights).items(), key=lambda item: item[1]) for one in self.decisions]

    @property
    def feasible(self) -> list[float]:
        """The stated probability that the instruction can be carried out, per sample."""
        return [one.feasible for one in self.decisions]


def decide_all(
    samples: Sequence[Item], decide: Callable[[Item], RoutingDecision], *, threshold: float = INFEASIBLE_BELOW
) -> Decisions:
    """Ask a router about every sample. `samples` must not be empty."""
    started = time.perf_counter()
    decisions = tuple(decide(sample) for sample in samples)
    seconds = (time.perf_counter() - started) / max(1, len(samples))
    return Decisions(decisions[0].router, decisions, seconds, threshold)


@dataclass(frozen=True, eq=False)
class Compliance:
    """Right edits per sample, each [n], under three ways of routing."""

    own: Floats
    """1 where the router's own choice edits right, else 0."""
    best_single: Floats
    """The same for the best single expert, which is used for every sample."""
    oracle: Floats
    """The same for the best expert of each sample."""

    @property
    def gap_recovered(self) -> float | None:
        """(own - best single) / (oracle - best single); None if the interval of the denominator includes 0.

        A share of a gap that may be zero can be any number.
        """
        low, _ = bootstrap_mean(self.oracle - self.best_single)
        if low <= 0:
            return None
        single = float(self.best_single.mean())
        return (float(self.own.mean()) - single) / (float(self.oracle.mean()) - single)


def routing_report(
    decided: Decisions,
    infeasible: Decisions | None,
    compliance: Compliance,
    *,
    kinds: Sequence[str],
    needed: Sequence[str],
    held_out: Sequence[bool],
    competences: Mapping[str, str],
) -> dict[str, Any]:
    """All figures of one router, as JSON data.

    `decided` are decisions on feasible samples, `infeasible` on infeasible ones (None: there are no such samples). `kinds`,
    `needed` (the competence that the edit needs) and `held_out` (whether the phrasing was not trained on) describe the
    samples of `decided`. `competences` maps each expert to its competence. A decision is right if the chosen expert has
    the needed competence. Calibration is that of the most probable expert, even if the router used the base model
    because it was not confident.
    """
    chosen = decided.first
    names, confidence = zip(*decided.stated, strict=True)
    right, named_right = _right(chosen, needed, competences), _right(names, needed, competences)
    stated, unseen = np.minimum(confidence, 1.0), np.array(held_out, bool)
    load = {name: chosen.count(name) / len(chosen) for name in competences}
    each_kind = tuple(dict.fromkeys(kinds))
    return {
        "router": decided.router,
        **_accuracy("seen", right[~unseen]),
        **_accuracy("held_out", right[unseen]),
        "accuracy_by_kind": {kind: float(right[[one == kind for one in kinds]].mean()) for kind in each_kind},
        "ece": calibration_error(stated, named_right),
        "gap_recovered": compliance.gap_recovered,
        "regret_to_oracle": float(compliance.oracle.mean()) - float(compliance.own.mean()),
        **_feasibility(decided, infeasible),
        "utilisation": load,
        "utilisation_entropy": entropy(list(load.values())),
        "decision_entropy": float(np.mean([one.entropy for one in decided.decisions])),
        "mutual_information": asdict(permuted_information(chosen, kinds)),
        "seconds": decided.seconds,
        "calibration": [asdict(one) for one in calibration_bins(stated, named_right)],
        "confusion": {
            kind: {
                name: sum(k == kind and c == name for k, c in zip(kinds, chosen, strict=True)) for name in competences
            }
            for kind in each_kind
        },
    }


def _right(chosen: Sequence[str], needed: Sequence[str], competences: Mapping[str, str]) -> Floats:
    return np.array([float(competences[name] == need) for name, need in zip(chosen, needed, strict=True)])


def _accuracy(name: str, right: Floats) -> dict[str, Any]:
    if right.size == 0:
        return {f"accuracy_{name}": None, f"accuracy_{name}_ci": None, f"accuracy_{name}_count": 0}
    return {
        f"accuracy_{name}": float(right.mean()),
        f"accuracy_{name}_ci": list(bootstrap_mean(right)),
        f"accuracy_{name}_count": int(right.size),
    }


def _feasibility(decided: Decisions, infeasible: Decisions | None) -> dict[str, Any]:
    """How well the router separates infeasible instructions from feasible ones."""
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


def recall_at(negatives: ArrayLike, positives: ArrayLike, false_alarms: float) -> float:
    """The largest share of positives above a threshold that at most the share `false_alarms` of negatives exceeds."""
    low, high = np.asarray(negatives, np.float64), np.asarray(positives, np.float64)
    if low.size == 0 or high.size == 0:
        raise InputError("A recall needs scores of both classes.")
    allowed = int(np.floor(false_alarms * low.size))
    threshold = np.sort(low)[::-1][allowed] if allowed < low.size else -np.inf
    return float((high > threshold).mean())
