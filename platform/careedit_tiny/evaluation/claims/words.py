"""Claims about instructions: identity that is kept, phrasing, instructions that do not apply, looks that were not taught."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from careedit.bench.report import Goal
from careedit.records import BASE
from careedit.stats import Floats
from careedit_tiny.evaluation.claims.claim import Claim, Condition, Figure, Finding
from careedit_tiny.evaluation.claims.figures import mean, points, share
from careedit_tiny.evaluation.claims.samples import in_other_phrasings, look_samples, untaught
from careedit_tiny.evaluation.claims.setting import Setting, right
from careedit_tiny.evaluation.quality import Outcome
from careedit_tiny.world.operations import KINDS
from careedit_tiny.world.samples import Sample, draw_samples

EACH = 2
"""Seen phrasings, and held-out phrasings, per scene."""


def identity(setting: Setting) -> Finding:
    """Drift of the kept object, by who edits."""
    samples = setting.samples("identity")
    experts = {"identity expert": setting.need_expert("identity"), "style expert": setting.need_expert("style")}
    arms: dict[str, str | list[str]] = {**experts, "base": BASE}
    if setting.subject.unified is not None:
        arms["unified LoRA"] = setting.need_unified()
    arms["routed"] = [setting.routed(sample) for sample in samples]
    made = {name: setting.edit(samples, arm) for name, arm in arms.items()}
    drift = {name: np.array([float(bool(one.kept_drifted)) for one in row]) for name, row in made.items()}
    logo = [
        sample.target.things[sample.target.keep].shape == "logo" for sample in samples if sample.target.keep is not None
    ]
    chosen = np.array([float(name == experts["identity expert"]) for name in arms["routed"]])
    figures = {
        "style expert minus identity expert, drift": points(drift["identity expert"], drift["style expert"]),
        **{f"drift, {name}": share(row) for name, row in drift.items()},
        "routed to the identity expert": share(chosen),
    }
    if any(logo):
        figures["routed to the identity expert where a logo is kept"] = share(chosen[logo])
        figures["drift where a logo is kept, routed"] = share(drift["routed"][logo])
    rows = [
        (name, str(share(drift[name])), str(mean([one.kept_drift or 0.0 for one in row])), str(share(right(row))))
        for name, row in made.items()
    ]
    return Finding(figures, ("who edits", "kept object drifts", "error on it", "right"), rows)


def phrasing(setting: Setting) -> Finding:
    """How much the words alone change: the same scene, noise and edit, said in other ways."""
    unified = setting.need_unified()
    scenes = list(draw_samples(setting.n, "test", kinds=KINDS))
    said = [one for scene in scenes for one in in_other_phrasings(scene, EACH)]
    routed = [setting.routed(one) for one in said]
    made = {"routed": setting.edit(said, routed), "unified": setting.edit(said, unified)}
    shape = (len(scenes), 2 * EACH)
    by_scene = {name: right(row).reshape(shape) for name, row in made.items()}
    spread = {name: np.ptp(row, axis=1) for name, row in by_scene.items()}
    halves = {name: (row[:, :EACH].mean(axis=1), row[:, EACH:].mean(axis=1)) for name, row in by_scene.items()}
    alike = [float(len(set(row)) == 1) for row in np.array(routed).reshape(shape)]
    figures = {
        "spread, unified minus routed": points(spread["routed"], spread["unified"]),
        "spread, unified LoRA": share(spread["unified"]),
        "spread, routed": share(spread["routed"]),
        "held-out minus seen phrasings, unified LoRA": points(*halves["unified"]),
        "held-out minus seen phrasings, routed": points(*halves["routed"]),
        "one expert for all phrasings of a scene": share(alike),
    }
    rows = [
        (name, *(f"{100 * half.mean():.1f} %" for half in halves[name]), f"{100 * spread[name].mean():.1f} %")
        for name in made
    ]
    return Finding(figures, ("who edits", "right, seen phrasings", "right, held-out phrasings", "spread"), rows)


def infeasible(setting: Setting) -> Finding:
    """Edits of instructions about an object that the scene does not show."""
    setting.need_learned()
    samples = setting.samples("infeasible")
    decisions = [setting.route(sample) for sample in samples]
    threshold = setting.subject.feasible_threshold
    flagged = np.array([float(one.feasible < threshold) for one in decisions])
    forced = [max(one.probabilities, key=lambda name: one.probabilities[name]) for one in decisions]
    without = 1 - right(setting.edit(samples, forced))
    chosen = 1 - right(setting.edit(samples, [setting.routed(sample) for sample in samples]))
    feasible = list(draw_samples(setting.n, "test"))
    alarms = [float(setting.route(sample).feasible < threshold) for sample in feasible]
    figures: dict[str, Figure] = {
        "without the head minus with it": points(without * (1 - flagged), without),
        "hallucinated without the head": share(without),
        "hallucinated with the head, flagged edits refused": share(without * (1 - flagged)),
        "hallucinated with the head, flagged edits by the base": share(chosen),
        "false alarms on feasible instructions": share(alarms),
    }
    if setting.subject.unified is not None:
        figures["hallucinated by the unified LoRA"] = share(1 - right(setting.edit(samples, setting.need_unified())))
    return Finding(figures)


def reference(setting: Setting) -> Finding:
    """A look by words alone, and by a reference image that has it."""
    figures: dict[str, Figure] = {}
    rows = []
    for name, look in (("untaught look", untaught), ("taught look", lambda _: None)):
        pairs = [look_samples(i, look(i)) for i in range(setting.n)]
        words, shown = (_routed(setting, side) for side in zip(*pairs, strict=True))
        figures[f"{name}: with a reference minus words alone"] = points(right(words), right(shown))
        figures[f"{name}, words alone"] = share(right(words))
        figures[f"{name}, with a reference"] = share(right(shown))
        rows += [
            (
                name,
                side,
                str(share(right(made))),
                str(share([float(one.followed) for one in made])),
                str(mean(_l1(made))),
            )
            for side, made in (("words alone", words), ("with a reference", shown))
        ]
    return Finding(figures, ("look", "asked for by", "right", "followed", "error of the whole image"), rows)


def _routed(setting: Setting, samples: Sequence[Sample]) -> list[Outcome]:
    return setting.edit(samples, [setting.routed(sample) for sample in samples])


def _l1(made: Sequence[Outcome]) -> Floats:
    return np.array([one.l1 for one in made])


BRIEF = "the project's brief, not from the paper"
"""Where a number comes from that no paper states."""

IDENTITY = Claim(
    id=12,
    title="Identity",
    statement="An expert for identity keeps the named object as it is; a style expert changes it.",
    source="CARE-Edit (arXiv 2603.08589), section 1: identity and style drift of unified editors",
    stated=f"drift of 8 % falls to under 1 % ({BRIEF})",
    method="Identity edits of test scenes by each arm from equal noise. The kept object drifts if it alone fails the oracle's "
    "test of preservation. Half of the instructions name a logo, the brand's object.",
    conditions=(
        Condition("style expert minus identity expert, drift", Goal("above", 0.0)),
        Condition("drift, identity expert", Goal("at most", 0.01)),
    ),
    measure=identity,
)
PHRASING = Claim(
    id=13,
    title="Phrasing",
    statement="The phrasing of an instruction alone changes whether an edit is right, and routed experts depend on it less.",
    source="InstructMoLE (arXiv 2512.21788): routing by the whole instruction",
    stated=f"a spread of 35 % ({BRIEF})",
    method=f"Each test scene is edited from one noise in {EACH} seen and {EACH} held-out phrasings. The spread of a scene is its "
    "best phrasing minus its worst one, 0 or 1. Scenes of all kinds take turns.",
    conditions=(Condition("spread, unified minus routed", Goal("above", 0.0)),),
    measure=phrasing,
)
INFEASIBLE = Claim(
    id=14,
    title="Infeasible instructions",
    statement="A check whether the instruction applies to the image prevents hallucinated edits.",
    source="CAMILA (arXiv 2509.19731): instructions that cannot be executed are ignored",
    stated=f"12 % hallucinated ({BRIEF})",
    method="Instructions about an object that the scene does not show. An edit is hallucinated if it changes the image. Without "
    "the head the most probable expert edits. With it, a flagged instruction is refused, or edited by the base as the "
    "editor does.",
    conditions=(Condition("without the head minus with it", Goal("above", 0.0)),),
    measure=infeasible,
)
REFERENCE = Claim(
    id=15,
    title="Reference in context",
    statement="A look that no expert was taught is reached with a reference image in the context, and not by words alone.",
    source="CARE-Edit (arXiv 2603.08589), section 3: the reference expert; ICEdit (arXiv 2504.20690), section 3.1: editing "
    "in context",
    stated=f"58 % rise to 89 % ({BRIEF})",
    method="Four looks that no recipe shows, on test scenes: once named in words, once with a reference scene that has the look. "
    "The set's own router chooses the expert. Taught looks in the same scenes are the control.",
    conditions=(Condition("untaught look: with a reference minus words alone", Goal("above", 0.0)),),
    measure=reference,
)
