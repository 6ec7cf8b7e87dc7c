"""Claim 17: quality, latency and memory by the number of active experts, and what switching and stacking cost."""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from careedit.bench.engine import bench_engine
from careedit.bench.report import Goal
from careedit.bench.subject import Subject as EngineSubject
from careedit.bench.timing import ratios, turns
from careedit.editor import Editor
from careedit.files import write_atomic
from careedit.records import BASE, EditRequest, RoutingDecision
from careedit_eval.editors.local import UNIFIED as UNIFIED_ARM
from careedit_tiny.evaluation.claims.claim import Claim, Condition, Figure, Finding, NotMeasuredError
from careedit_tiny.evaluation.claims.figures import points, repeats, share
from careedit_tiny.evaluation.claims.setting import Setting, right
from careedit_tiny.evaluation.claims.words import BRIEF
from careedit_tiny.evaluation.filter.page import figure_class
from careedit_tiny.evaluation.quality.measure import Arm
from careedit_tiny.models.family import PANEL
from careedit_tiny.world.samples import Sample, draw_samples, request_for

ROUNDS = 3
"""Timed rounds per row; every row edits the same scenes in each of them."""
TIMED = 2
"""Scenes per timed round."""
FLOOR = 0.01
"""Minimum probability with which an expert joins a mixture."""
MARGIN = -2.0
"""Percentage points that top-1 may lose against all experts and still count as equally good."""
PICTURE = "claims-pareto.png"
"""File name of the plot."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Cost:
    """What one row needs to edit."""

    seconds: Sequence[float]
    """Wall-clock seconds per edit, one value per round."""
    resident: float
    """MiB of transformer and LoRA weights that must be loaded to serve any edit of the row."""
    active: float
    """MiB of LoRA weights that one step of an edit uses, on average."""


def activation(setting: Setting) -> Finding:
    """The five rows on the same scenes and noise, then their costs."""
    samples = list(draw_samples(setting.n, "test"))
    arms = arms_of(setting, samples)
    compliant = {name: right(setting.edit(samples, row)) for name, row in arms.items()}
    costs = cost_of(setting, samples, arms)
    everyone = next(name for name in arms if name.startswith("all "))
    single = costs["top-1"].seconds
    figures: dict[str, Figure] = {
        "top-1 minus all experts, right": points(compliant[everyone], compliant["top-1"]),
        "latency, all experts over top-1": repeats(ratios(costs[everyone].seconds, single).values),
        "latency, top-2 over top-1": repeats(ratios(costs["top-2"].seconds, single).values),
        "latency, top-1 over base": repeats(ratios(single, costs["base"].seconds).values),
        **engine_figures(setting),
        **{f"right, {name}": share(row) for name, row in compliant.items()},
    }
    save_plot(setting, compliant, costs)
    rows = [
        (
            name,
            str(share(row)),
            f"{np.median(costs[name].seconds):.3f} ({min(costs[name].seconds):.3f} to {max(costs[name].seconds):.3f})",
            f"{costs[name].resident:.1f}",
            f"{costs[name].active:.2f}",
        )
        for name, row in compliant.items()
    ]
    columns = ("row", "right", "seconds per edit, median (range)", "MiB resident", "MiB of LoRA active per step")
    return Finding(figures, columns, rows, picture=PICTURE)


def arms_of(setting: Setting, samples: Sequence[Sample]) -> dict[str, list[Arm]]:
    """By row: who edits each sample. A set without a unified LoRA has no row of it."""
    count = len(setting.subject.experts)
    if count < 2:
        raise NotMeasuredError("The set has one expert, so the number of active experts cannot differ.")

    def mixed(active: int) -> list[Arm]:
        return [mixture_of(setting.route(sample), setting.subject.experts, active) for sample in samples]

    rows: dict[str, list[Arm]] = {
        "base": [BASE] * len(samples),
        "top-1": [setting.routed(sample) for sample in samples],
    }
    rows |= {"top-2": mixed(2), f"all {count} experts": mixed(count)}
    if setting.subject.unified is not None:
        rows["unified LoRA"] = [UNIFIED_ARM] * len(samples)
    return rows


def mixture_of(decision: RoutingDecision, experts: Sequence[str], active: int) -> dict[str, float]:
    """The `active` most probable experts, weighted by their probabilities.

    The router leaves an expert of little weight out, which would leave one expert in most rows. So each has `FLOOR` at least.
    """
    stated = {name: max(FLOOR, decision.probabilities.get(name, 0.0)) for name in experts}
    chosen = sorted(experts, key=lambda name: -stated[name])[:active]
    total = sum(stated[name] for name in chosen)
    return {name: stated[name] / total for name in chosen}


def cost_of(setting: Setting, samples: Sequence[Sample], arms: Mapping[str, list[Arm]]) -> dict[str, Cost]:
    """Single edits with shared experts, as a server makes them; the rows take turns, so that a slow phase slows all."""
    subject = setting.subject
    own = subject.editor.expert_set
    base = subject.editor.engine.base
    editors = {"experts": Editor(own, device=base.device, dtype=base.dtype, application="shared")}
    if subject.unified is not None:
        unified_set = subject.unified.expert_set
        editors[UNIFIED_ARM] = Editor(unified_set, device=base.device, dtype=base.dtype, application="shared")
    requests = {name: _requests(setting, samples[:TIMED], row[:TIMED]) for name, row in arms.items()}

    def timed(name: str) -> float:
        editor = editors[UNIFIED_ARM if name == "unified LoRA" else "experts"]
        editor.engine.cache.clear()
        started = time.perf_counter()
        for request in requests[name]:
            editor.edit(request)
        return (time.perf_counter() - started) / len(requests[name])

    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for round_ in range(-1, ROUNDS):  # the first round is not counted: it loads the experts
        for name in turns(tuple(arms), round_):
            spent = timed(name)
            if round_ >= 0:
                seconds[name].append(spent)
    width = next(iter(base.transformer.parameters())).element_size()
    whole = own.shapes.count * width / MIB
    experts = {name: own.parameters(name) * width / MIB for name in own.names} | {BASE: 0.0}
    if subject.unified is not None:
        experts[UNIFIED_ARM] = unified_set.parameters(unified_set.names[0]) * width / MIB
    loaded = {"base": 0.0, "unified LoRA": experts.get(UNIFIED_ARM, 0.0)}
    everything = sum(experts[name] for name in own.names)
    costs = {}
    for name, row in arms.items():
        active = [sum(experts[one] for one in ([arm] if isinstance(arm, str) else arm)) for arm in row]
        costs[name] = Cost(seconds[name], whole + loaded.get(name, everything), float(np.mean(active)))
    return costs


def engine_figures(setting: Setting) -> dict[str, Figure]:
    """Switching and stacking by `careedit bench engine`."""
    own, base = setting.subject.editor.expert_set, setting.subject.editor.engine.base
    # A copy: the benchmark merges experts of its own, which the editor would not know of.
    base = replace(base, transformer=copy.deepcopy(base.transformer))
    engine = EngineSubject(own.name, base, own, own.shapes, own.spec.panel.size, setting.subject.steps)
    report = bench_engine(engine, repeats=3, steps=setting.subject.steps)
    named = {
        "switching, merged: A, B, A, B over A, A, A, A": "switch_ratio_merged",
        "switching, shared: A, B, A, B over A, A, A, A": "switch_ratio_shared",
        "stacking: a step with a shared expert over a merged one": "shared_step_ratio",
    }
    return {name: repeats(report.comparisons[key].ratios) for name, key in named.items()}


def save_plot(setting: Setting, compliant: Mapping[str, np.ndarray], costs: Mapping[str, Cost]) -> None:
    """Draw right edits over latency, with the memory as the size of each point."""
    figure = figure_class()(figsize=(7.2, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for name, row in compliant.items():
        one, seconds = share(row), float(np.median(costs[name].seconds))
        ends = [[100 * (one.value - (one.low or 0.0))], [100 * ((1.0 if one.high is None else one.high) - one.value)]]
        axes.errorbar(seconds, 100 * one.value, yerr=ends, fmt="none", ecolor="#a5a8ad", elinewidth=1)
        axes.scatter(seconds, 100 * one.value, s=8 * costs[name].resident, alpha=0.7)
        axes.annotate(name, (seconds, 100 * one.value), xytext=(6, 6), textcoords="offset points", fontsize=9)
    axes.set(xlabel="seconds per edit", ylabel="right edits, %", title="Size of a point: resident weights")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    file = io.BytesIO()
    # Without a version in it, the same figures are the same file.
    figure.savefig(file, format="png", metadata={"Software": None})
    setting.pictures.mkdir(parents=True, exist_ok=True)
    write_atomic(setting.pictures / PICTURE, file.getvalue())


def _requests(setting: Setting, samples: Sequence[Sample], row: Sequence[Arm]) -> list[EditRequest]:
    made = []
    for sample, arm in zip(samples, row, strict=True):
        if arm == UNIFIED_ARM and setting.subject.unified is not None:
            arm = setting.subject.unified.expert_set.names[0]
        request = request_for(sample, seed=setting.bench.plan.noise(sample), expert=arm, size=PANEL)
        made.append(request.model_copy(update={"steps": setting.subject.steps}))
    return made


ACTIVATION = Claim(
    id=17,
    title="Sparse activation",
    statement="One active expert per edit is as good as all experts together, at a fraction of the latency.",
    source="ICEdit (arXiv 2504.20690), ablation of top-k: K = 1 is the best; CARE-Edit (arXiv 2603.08589), ablation of K",
    stated=f"switching 2.4x, stacking 3.2x ({BRIEF})",
    method=f"The same test scenes and noise by the base, the unified LoRA, and the set's router with top-1, top-2 and all experts, "
    f"mixed by their probabilities (each {FLOOR:.0%} at least). Latency: {ROUNDS} rounds of single edits with shared experts, in turns. Switching and "
    "stacking: `careedit bench engine`; their ends are the smallest and the largest of the repeats.",
    conditions=(
        Condition("top-1 minus all experts, right", Goal("at least", MARGIN)),
        Condition("latency, all experts over top-1", Goal("above", 1.0)),
    ),
    measure=activation,
    version=2,
)
