"""Claims that train: forgetting, interference, and the cost of a new competence."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from careedit.bench.report import Goal
from careedit.errors import CareEditError
from careedit.experts import ExpertManifest, add_expert
from careedit.experts.manifest import MANIFEST_FILE
from careedit.finetune.router.examples import Example
from careedit.finetune.router.teach import teach
from careedit.routing import features_of
from careedit.stats import Floats
from careedit_tiny.evaluation.claims.claim import Claim, Condition, Figure, Finding, NotMeasuredError
from careedit_tiny.evaluation.claims.figures import error_removed, points, share, steps_ratio
from careedit_tiny.evaluation.claims.samples import NEWCOMER, RIVALS, brand_sample
from careedit_tiny.evaluation.claims.setting import Setting, errors, right
from careedit_tiny.evaluation.claims.training import BATCH, Lesson, Workshop, state_of, training
from careedit_tiny.evaluation.claims.words import BRIEF
from careedit_tiny.evaluation.quality import Outcome, load_subject
from careedit_tiny.evaluation.quality.outcomes import identity_outcomes
from careedit_tiny.models.family import PANEL
from careedit_tiny.recipes.router.run import rehearsal
from careedit_tiny.world.operations import KINDS
from careedit_tiny.world.samples import Sample, draw_sample, draw_samples, request_for

RANKS = (4, 16)
"""Ranks of an expert in the claim of interference. The unified LoRA has the rank of both experts together."""
RANK = 16
"""Rank of an expert in the other claims."""
SHARES = (0.25, 0.5, 1.0)
"""Trainings of the claim of extension: each of these shares of the full steps is a training of its own."""
ROUTER_STEPS, PER_GROUP = 400, 60
"""Maximum steps of the router's lesson, and the rehearsed edits per kind of edit."""
EXAMPLES = 40
"""Examples of the new competence for the router."""
FIRST = 5_000_000
"""Index of the first training sample. Pools of the recipes start elsewhere."""
PLAIN = tuple(kind for kind in KINDS if kind != "reference")
"""Kinds of edit without a reference, whose canvases have two panels."""


def brand_lesson(brand: str) -> Lesson:
    """Training samples of a brand's look."""
    return Lesson(brand, lambda index: brand_sample(brand, FIRST + index, "train"))


def kind_lesson(kind: str) -> Lesson:
    """Training samples of a kind of edit, or of an operation."""
    return Lesson(kind, lambda index: draw_sample(kind, FIRST + index, "train"))


def old_lesson() -> Lesson:
    """Training samples of all kinds without a reference, in turn."""
    return Lesson("old", lambda index: draw_sample(PLAIN[index % len(PLAIN)], FIRST + index // len(PLAIN), "train"))


def forgetting(setting: Setting) -> Finding:
    """Old competences before and after a new one: the unified LoRA trained further, and an expert with a taught router."""
    setting.need_learned()
    unified_arm = setting.need_unified()
    unified = setting.subject.unified
    assert unified is not None  # else `need_unified` has raised
    rank, start = state_of(unified.expert_set.load(unified.expert_set.names[0]))
    workshop = Workshop(setting, 9, units=2, rank=rank)
    steps, new = workshop.full_steps(), [brand_lesson(NEWCOMER)]
    further = setting.with_experts([workshop.train("further", new, steps, rank, start)])
    expert = workshop.train("newcomer", new, steps, RANK)

    old = list(draw_samples(setting.n, "test"))
    fresh = [brand_sample(NEWCOMER, i, "test") for i in range(setting.n)]
    taught, router_steps = _taught(setting, workshop, expert, steps)
    chosen = [taught.routed(sample) for sample in fresh]
    rows: dict[str, tuple[Floats, Floats]] = {
        "unified, old": (right(setting.edit(old, unified_arm)), right(further.edit(old, "further"))),
        "unified, new": (right(setting.edit(fresh, unified_arm)), right(further.edit(fresh, "further"))),
        "routed, old": (_right_routed(setting, old), _right_routed(taught, old)),
        "routed, new": (_right_routed(setting, fresh), _right_routed(taught, fresh)),
    }
    figures = {
        "lost on old edits, unified LoRA trained further": points(*rows["unified, old"][::-1]),
        "lost on old edits, new expert and taught router": points(*rows["routed, old"][::-1]),
        "gained on the new competence, unified LoRA": points(*rows["unified, new"]),
        "gained on the new competence, new expert": points(*rows["routed, new"]),
        "routed to the new expert, new competence": share([float(name == "newcomer") for name in chosen]),
        "routed to the new expert, old edits": share([float(taught.routed(sample) == "newcomer") for sample in old]),
    }
    table = [(name, str(share(before)), str(share(after))) for name, (before, after) in rows.items()]
    budget = (
        f"{steps} steps of {BATCH} samples each: the unified LoRA (rank {rank}) further, and a new expert (rank {RANK}). "
        f"Router: {router_steps} steps on {EXAMPLES} examples, {PER_GROUP} rehearsed edits per kind. Seed {setting.seed}."
    )
    return Finding(figures, ("edits", "right before", "right after"), table, budget)


def _taught(setting: Setting, workshop: Workshop, expert: Path, steps: int) -> tuple[Setting, int]:
    """The set with the new expert and a router that was taught it, and the steps of that lesson."""
    own = setting.subject.editor.expert_set
    local, root, mark = own.folder.local, workshop.folder / "set", workshop.folder / "set-is-taught"
    if local is None:
        raise NotMeasuredError("The set is not in a local folder, so its router cannot be taught; name a local copy.")
    router_steps = min(ROUTER_STEPS, 4 * steps)
    if not mark.exists():
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(local, root)
        manifest = ExpertManifest.from_yaml((expert / MANIFEST_FILE).read_text("utf-8"), MANIFEST_FILE)
        add_expert(root, manifest, expert / manifest.file)
        shown = [brand_sample(NEWCOMER, FIRST + i, "train") for i in range(EXAMPLES)]
        examples = [Example(features_of(request_for(sample, size=PANEL)), "newcomer") for sample in shown]
        try:
            rehearse = partial(rehearsal, per_group=PER_GROUP)
            with training():
                teach(root, examples, workshop.folder / "router", steps=router_steps, rehearsals=[rehearse])
        except CareEditError as error:  # the old router stays if it would forget
            raise NotMeasuredError(f"The router could not be taught in {router_steps} steps. {error}") from error
        mark.touch()
    base = setting.subject.editor.engine.base
    subject = load_subject(str(root), steps=setting.subject.steps, device=base.device, dtype=base.dtype)
    return Setting(
        subject, setting.out, setting.n, setting.seed, setting.minutes, setting.batch, done=setting.done
    ), router_steps


def _right_routed(setting: Setting, samples: Sequence[Sample]) -> Floats:
    return right(setting.edit(samples, [setting.routed(sample) for sample in samples]))


def interference(setting: Setting) -> Finding:
    """Two experts against one LoRA for both, at several ranks and budgets, on compatible and on conflicting competences."""
    pairs = {
        "compatible": [kind_lesson("remove.thing"), kind_lesson("style.look")],
        "conflicting": [brand_lesson(brand) for brand in RIVALS],
    }
    budgets = (0.5, 1.0)
    workshop = Workshop(setting, 10, units=4 * sum(budgets) * len(RANKS) * len(pairs), rank=2 * max(RANKS))
    full = workshop.full_steps()
    half = -(-setting.n // 2)  # test scenes per competence
    tests: dict[str, list[Sample]] = {
        kind: [draw_sample(kind, i, "test") for i in range(half)] for kind in ("remove.thing", "style.look")
    } | {brand: [brand_sample(brand, i, "test") for i in range(half)] for brand in RIVALS}
    figures: dict[str, Figure] = {}
    rows = []
    for (name, lessons), rank, part in product(pairs.items(), RANKS, budgets):
        steps = max(1, round(part * full))
        tag = f"r{rank}-s{steps}"
        experts = [workshop.train(f"{_plain(one.name)}-{tag}", [one], steps, rank) for one in lessons]
        both = workshop.train(f"{name}-{tag}", lessons, 2 * steps, 2 * rank)
        trained = setting.with_experts([*experts, both])
        scenes = [sample for one in lessons for sample in tests[one.name]]
        arms = [f"{_plain(one.name)}-{tag}" for one in lessons for _ in range(half)]
        special, unified = trained.edit(scenes, arms), trained.edit(scenes, f"{name}-{tag}")
        untouched = errors(identity_outcomes(scenes))
        figures[f"{name}, rank {rank}, {steps} steps: experts minus unified"] = points(right(unified), right(special))
        removed = [error_removed(errors(made), untouched) for made in (special, unified)]
        rows.append(
            (
                name,
                str(rank),
                str(steps),
                str(share(right(special))),
                str(share(right(unified))),
                *(f"{one:.3f}" for one in removed),
            )
        )
    last = f"conflicting, rank {max(RANKS)}, {max(1, full)} steps: experts minus unified"
    figures = {INTERFERENCE: figures[last], **figures}
    budget = (
        f"Two experts of rank r for s steps each of {BATCH} samples, against one LoRA of rank 2 r for 2 s steps; full budget "
        f"{full} steps. Seed {setting.seed}."
    )
    columns = (
        "competences",
        "r",
        "s",
        "right, experts",
        "right, unified",
        "error removed, experts",
        "error removed, unified",
    )
    return Finding(figures, columns, rows, budget)


def extension(setting: Setting) -> Finding:
    """Quality on a new competence by steps: as an expert, and by training the unified LoRA again on old and new edits."""
    count = len(setting.subject.experts) + 1
    workshop = Workshop(setting, 11, units=(1 + count) * sum(SHARES), rank=count * RANK)
    full = workshop.full_steps()
    if full * SHARES[0] < 1:
        raise NotMeasuredError("The budget allows fewer than four steps, too few for a curve; raise --budget-minutes.")
    new, old = brand_lesson(NEWCOMER), old_lesson()
    fresh = [brand_sample(NEWCOMER, i, "test") for i in range(setting.n)]
    untouched = errors(identity_outcomes(fresh))
    trainings: dict[str, tuple[list[int], list[Sequence[Outcome]]]] = {"expert": ([], []), "unified": ([], [])}
    for part in SHARES:
        steps = max(1, round(part * full))
        for name, times, lessons in (("expert", 1, [new]), ("unified", count, [new, *_copies(old, count - 1)])):
            lora = f"{name}-s{times * steps}"
            trained = setting.with_experts([workshop.train(lora, lessons, times * steps, times * RANK)])
            trainings[name][0].append(times * steps)
            trainings[name][1].append(trained.edit(fresh, lora))
    curves = {name: (steps, np.stack([errors(one) for one in made])) for name, (steps, made) in trainings.items()}
    figures = {EXTENSION: steps_ratio(curves["unified"], curves["expert"], untouched)}
    figures |= {f"right after the last step, {name}": share(right(made[-1])) for name, (_, made) in trainings.items()}
    rows = [
        (name, str(step), str(step * BATCH), f"{error_removed(errors(one), untouched):.3f}", str(share(right(one))))
        for name, (steps, made) in trainings.items()
        for step, one in zip(steps, made, strict=True)
    ]
    budget = (
        f"Each row of the table is a training of its own from nothing. The expert has rank {RANK}, the unified LoRA {count} times "
        f"that and {count} times the steps, {count - 1} in {count} of its samples old edits. Seed {setting.seed}."
    )
    return Finding(figures, ("who learns", "steps", "samples", "error removed", "right"), rows, budget)


def _copies(lesson: Lesson, count: int) -> list[Lesson]:
    """The lesson as `count` lessons of equal shares, each with samples of its own."""

    def draw(part: int, index: int) -> Sample:
        return lesson.draw(count * index + part)

    return [Lesson(f"{lesson.name}{part}", partial(draw, part)) for part in range(count)]


def _plain(name: str) -> str:
    """The name of a lesson as the name of an expert, which has no dots."""
    return name.replace(".", "-")


INTERFERENCE = "conflicting, largest rank and budget: experts minus unified"
"""The name of the figure that decides the claim of interference."""
EXTENSION = "steps of the unified LoRA over steps of the expert, to 90 % of the final quality"
"""The name of the figure that decides the claim of extension."""

FORGETTING = Claim(
    id=9,
    title="Forgetting",
    statement="A unified LoRA that is trained further on a new competence forgets old ones; a new expert and a taught router lose "
    "nothing.",
    source="CARE-Edit (arXiv 2603.08589), section 1: task interference in one set of weights",
    stated=f"up to 22 % lost ({BRIEF})",
    method="The new competence is a brand's look that no recipe shows. The set's unified LoRA is trained further on it, and a new "
    "expert is trained on the same samples for the same steps and taught to the set's router as `careedit train router` does. "
    "Lost: right old edits before minus after, on equal scenes and noise.",
    conditions=(
        Condition("lost on old edits, unified LoRA trained further", Goal("above", 0.0)),
        Condition("lost on old edits, new expert and taught router", Goal("at most", 1.0)),
    ),
    measure=forgetting,
    trains=True,
)
INTERFERENCE_CLAIM = Claim(
    id=10,
    title="Interference",
    statement="Experts are better than one LoRA for all at equal parameters, samples and steps, above all where competences "
    "conflict.",
    source="CARE-Edit (arXiv 2603.08589), section 1; ICEdit (arXiv 2504.20690), ablation of experts and ranks",
    stated="GPT score 0.68 with four experts of rank 32, 0.59 with one (ICEdit, ablation)",
    method="Two experts against one LoRA for both, trained in the run at two ranks and two budgets. Compatible: removals and looks. "
    "Conflicting: two brands' looks under the same words, which differ in the brand's name only. Each edit uses the expert of its "
    "competence.",
    conditions=(Condition(INTERFERENCE, Goal("above", 0.0)),),
    measure=interference,
    trains=True,
)
EXTENSION_CLAIM = Claim(
    id=11,
    title="Extension",
    statement="A new competence costs fewer steps and samples as an expert than by training the unified LoRA again.",
    source="ICEdit (arXiv 2504.20690), abstract: adapters need little data",
    stated="0.1 % of the data of earlier methods (ICEdit, abstract)",
    method="A brand's look is learned by an expert, and by a unified LoRA trained again on old and new edits in proportion to the "
    "number of competences. Quality is the share of the error on new test scenes that the edits remove; the figure compares "
    "the steps until 90 % of each one's own final quality.",
    conditions=(Condition(EXTENSION, Goal("above", 1.0)),),
    measure=extension,
    trains=True,
)
