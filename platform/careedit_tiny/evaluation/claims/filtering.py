"""Claim 16: whether early previews and a judge find the better of several noises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from careedit.bench.report import Goal
from careedit.editor import Editor
from careedit.encoders import OpenClipEncoder
from careedit_tiny.evaluation.claims.claim import Claim, Condition, Figure, Finding, NotMeasuredError
from careedit_tiny.evaluation.claims.figures import points, ratio, share
from careedit_tiny.evaluation.claims.samples import ambiguous_samples
from careedit_tiny.evaluation.claims.setting import Setting
from careedit_tiny.evaluation.common import Cache
from careedit_tiny.evaluation.filter import FilterBench, FilterPlan, SceneTable
from careedit_tiny.evaluation.filter.measure import CLIP, JUDGE, ORACLE
from careedit_tiny.evaluation.filter.rows import RANDOM, cross_fitted_gain, row_of, single_row
from careedit_tiny.world.samples import Sample

CANDIDATES = 6
"""Noises per edit, as in the paper."""
GOAL = 0.6
"""Share of the oracle's gain that the judge's choice should reach."""
SHARE = "share of the oracle's gain that the judge reaches"
"""The name of the figure that decides."""
STARTS = {"source": 0.1, "noise": 1.0}
"""What edits may start from, with the standard deviation of the noise for a set that starts from the other one."""


def early_filter(setting: Setting) -> Finding:
    """Every strategy by every chooser: edits from both starts, and ambiguous instructions from the set's own start."""
    if setting.judge is None:
        raise NotMeasuredError("No judge was given; name one with --judge.")
    if setting.n < 2 or setting.subject.steps < 2:
        raise NotMeasuredError("The filter needs two scenes or more, and edits of two steps or more.")
    steps = setting.subject.steps
    plan = FilterPlan(steps, setting.n, setting.seed, (1, CANDIDATES), (max(1, steps // 4),))
    figures: dict[str, Figure] = {}
    rows: list[tuple[str, ...]] = []
    reached, unmeasured = None, ""
    for name, editor, scenes in _cases(setting):
        tables = _bench(setting, editor, plan, scenes).tables()
        gain = cross_fitted_gain(tables, plan, JUDGE)
        figures[f"{name}: gain of the judge"] = points(gain.single, gain.chosen)
        figures[f"{name}: gain of the oracle"] = points(gain.single, gain.best)
        if reached is None and not unmeasured:  # the first case is the set's own
            if (gain.best > gain.single).any():
                reached = ratio(gain.chosen - gain.single, gain.best - gain.single)
            else:
                unmeasured = (
                    "The oracle gains nothing over one noise in these scenes, so a judge cannot reach a share of it."
                )
        first = single_row(tables, steps)
        rows.append((name, "none", "none", f"{first.cost:.1f}", str(share(first.right))))
        for option in plan.settings:
            if option.candidates != CANDIDATES:
                continue
            for chooser in (RANDOM, CLIP, JUDGE, ORACLE):
                if chooser == RANDOM or chooser in tables[0].scores:
                    row = row_of(tables, option, chooser)
                    rows.append((name, option.strategy, chooser, f"{row.cost:.1f}", f"{100 * row.compliance:.1f} %"))
    if reached is not None:
        figures = {SHARE: reached, **figures}
    return Finding(figures, ("edits", "strategy", "chooser", "evaluations", "right"), rows, unmeasured=unmeasured)


def _cases(setting: Setting) -> Iterator[tuple[str, Editor, Sequence[Sequence[Sample]]]]:
    """(name, editor, scenes with several right results); no scenes: those of the plan. The set's own start comes first."""
    own = setting.subject.editor
    defaults = own.expert_set.spec.defaults
    yield f"start from {defaults.start}", own, ()
    yield f"ambiguous, start from {defaults.start}", own, [ambiguous_samples(i) for i in range(setting.n)]
    for start, scale in STARTS.items():
        if start != defaults.start and start in own.expert_set.facts.starts:
            other = defaults.model_copy(update={"start": start, "noise_scale": scale})
            changed = replace(own.expert_set, spec=own.expert_set.spec.model_copy(update={"defaults": other}))
            base = own.engine.base
            yield f"start from {start}", Editor(changed, device=base.device, dtype=base.dtype, application="merged"), ()


def _bench(setting: Setting, editor: Editor, plan: FilterPlan, scenes: Sequence[Sequence[Sample]]) -> FilterBench:
    encoder = getattr(editor.router, "encoder", None)
    return FilterBench(
        editor,
        plan,
        setting.judge,
        encoder if isinstance(encoder, OpenClipEncoder) else None,
        "the router's encoder",
        Cache(SceneTable, setting.out / "cache" / "filter"),
        setting.done,
        scenes,
    )


EARLY_FILTER = Claim(
    id=16,
    title="Early filter",
    statement="A judge of early previews finds the better of several noises.",
    source="ICEdit (arXiv 2504.20690), section 3.4 and table 5",
    stated="the GPT score rises from 0.68 to 0.78 with six noises (ICEdit, table 5)",
    method=f"{CANDIDATES} noises per test scene, previews after a quarter of the steps, by restart, continue and halving, chosen at "
    "random, by CLIP, by the judge, and by the oracle's verdict on the finished edits. The judge's setting is chosen on one half "
    "of the scenes and measured on the other. Edits start from the source and from noise. In ambiguous scenes the words name a "
    "shape that is there twice, and either object may go.",
    conditions=(Condition(SHARE, Goal("at least", GOAL)),),
    measure=early_filter,
)
