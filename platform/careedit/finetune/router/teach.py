"""`careedit train router --expert-set`: an existing router learns a new expert and keeps what it knows.

Against forgetting, every batch rehearses the old experts: with edits that a plug-in has for them, or else with the given
examples of them. Their targets are half the labels and half what the old router says (Learning without Forgetting, Li
and Hoiem 2017). If the router knows the old experts less well afterwards, the expert set is not changed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from careedit.encoders import OpenClipEncoder, load_encoder
from careedit.errors import CareEditError, InputError
from careedit.experts import ExpertSet, RouterSpec, install_router, load_expert_set, router_options, transformer_spec
from careedit.finetune.loop import TrainConfig, TrainReport
from careedit.finetune.precision import training_device
from careedit.finetune.router.examples import Example, example_pool
from careedit.finetune.router.fit import Rephrase, calibrated, fit, noisy, predict, with_steps
from careedit.finetune.router.pool import RouterPool
from careedit.finetune.router.quality import RouterQuality, by_group, evaluate, save
from careedit.routing.transformer import RouterConfig, RouterModel, load_model

DEFAULT = TrainConfig(steps=400, learning_rate=3e-4, warmup=40, weight_decay=0.02, betas=(0.9, 0.98), ema=0.99)
LARGEST_DROP = 0.02
"""Largest loss of accuracy on the old experts that is accepted."""
LICENCE = "Apache-2.0"
"""Licence in the new router's card."""
_HELD_BACK = 5  # one example in so many is measured on, not trained on


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """Edits for a router's old experts, which it repeats while it learns a new one."""

    shown: RouterPool
    """Edits that the router trains on."""
    measured: RouterPool
    """Other edits, on which the router is measured before and after."""
    groups: tuple[str, ...]
    """Groups of `shown` from which batches are drawn; a group named twice is drawn twice as often."""
    rephrase: Rephrase
    """Says an instruction in other words."""


FindRehearsal = Callable[[Sequence[str], OpenClipEncoder, Path], Rehearsal | None]
"""(old experts, encoder, folder to keep data in) -> what to rehearse, or None if the experts are not known."""


@dataclass(frozen=True, slots=True)
class RouterRecipe:
    """What a plug-in adds to `careedit train router`."""

    train: Callable[[Path, str | None, int | None, str | None, int], RouterQuality]
    """Trains a router from nothing: (results folder, encoder, steps, expert set whose outcomes are measured, measured edits)."""
    rehearsal: FindRehearsal
    """Finds what the router of a set rehearses when it learns a new expert."""


@dataclass(frozen=True, slots=True)
class Taught:
    """What the training changed."""

    new: tuple[str, ...]
    """The experts that the router learned."""
    old_before: float
    """Accuracy on edits for the old experts before the training, 0 to 1."""
    old_after: float
    """The same accuracy after the training."""
    new_after: float
    """Accuracy on held-back examples of the new experts after the training, 0 to 1."""
    expert_set_sha256: str
    """Hash of the expert set with its new router."""


def widened(model: RouterModel, experts: Sequence[str]) -> RouterModel:
    """The router with logits for more experts. The old ones keep their weights; a new one starts as their mean."""
    config = model.config.model_copy(update={"experts": (*model.config.experts, *experts)})
    with torch.random.fork_rng(devices=[]):
        wider = RouterModel(RouterConfig.model_validate(config.model_dump()))
    state = dict(model.state_dict())
    for name in ("experts.weight", "experts.bias"):
        mean = state[name].mean(dim=0, keepdim=True)
        state[name] = torch.cat([state[name], mean.expand(len(experts), *mean.shape[1:])])
    wider.load_state_dict(state)
    return wider


def teach(
    expert_set: str | Path,
    examples: Sequence[Example],
    folder: Path,
    *,
    steps: int | None = None,
    rehearsals: Sequence[FindRehearsal] = (),
) -> Taught:
    """Teach the router of the local set `expert_set` new experts from examples; `folder` keeps checkpoints and pools.

    The first of `rehearsals` that knows the old experts provides what is rehearsed. Raises `InputError` if the set has no
    learned router or examples are missing, and `CareEditError` if the old experts' accuracy falls by more than
    `LARGEST_DROP`. In both cases the set is not changed.
    """
    current = load_expert_set(expert_set)
    root, old, encoder = _opened(current)
    known = old.config.experts
    named = {example.expert for example in examples}
    new = tuple(name for name in current.names if name in named and name not in known)
    for name in sorted(named - set(current.names)):
        raise InputError(f"Examples name the expert {name!r}, which the set lacks; add it with careedit experts add.")
    if not new:
        raise InputError("Every expert that the examples name is known to the router already; nothing to teach.")
    model = widened(old, new)
    experts = model.config.experts
    rehearsal = next((found for find in rehearsals if (found := find(known, encoder, folder)) is not None), None)
    given = example_pool(examples, encoder, experts)
    shown = given.where(lambda i: i % _HELD_BACK != _HELD_BACK - 1)
    test = given.where(lambda i: i % _HELD_BACK == _HELD_BACK - 1)
    old_test = test.where(lambda i: test.groups[i] in known)
    new_test = test.where(lambda i: test.groups[i] not in known)
    if not len(new_test):
        raise InputError(f"There are too few examples of {', '.join(new)}; give ten or more of each new expert.")
    for name in known:
        if rehearsal is None and name not in shown.groups and name in current.names:
            raise InputError(f"Without examples of the expert {name!r} the router would forget it; add ten or more.")
    held = None if rehearsal is None else rehearsal.measured.over(experts)
    measured = old_test if held is None else held.plus(old_test)
    if not len(measured):
        raise InputError(
            "There are too few examples of the old experts to tell whether they are forgotten; give ten each."
        )
    before = _accuracy(old, encoder, measured, known)
    pool = shown if rehearsal is None else rehearsal.shown.over(experts).plus(shown)
    pool = replace(pool, targets=_distilled(old, encoder, pool))
    groups = [name for name in (known if rehearsal is None else rehearsal.groups) if name in pool.groups]
    lesson = [*groups, *(name for name in new for _ in range(max(1, len(groups) // 4)))]
    # Named by its content, so that no run continues from the checkpoint of another one.
    content = f"{current.sha256} {steps} {pool.texts} {float(pool.source.float().sum()):.1f}"
    name = f"router-lesson-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    rephrase = noisy if rehearsal is None else rehearsal.rephrase
    report = fit(name, model, encoder, pool, with_steps(DEFAULT, steps), folder, groups=lesson, rephrase=rephrase)
    (folder / f"{name}.ckpt").unlink(missing_ok=True)
    after = _accuracy(model, encoder, measured, known)
    if after < before - LARGEST_DROP:
        raise CareEditError(
            f"The router would forget: on edits for the old experts it would be right in {after:.1%} instead of "
            f"{before:.1%}, so the old one is kept; give more examples of the old experts or fewer --steps."
        )
    everything = test if held is None else held.plus(test)
    calibrated(model, encoder, everything)
    quality = evaluate(model, encoder, everything)
    accuracy = sum(by_group(model, encoder, new_test).values()) / len(set(new_test.groups))
    spec = _written(model, report, quality, root, current, {"New": ", ".join(new), "New experts": f"{accuracy:.1%}"})
    made = install_router(root, spec)
    _delete_old_files(root, current.spec.router)
    return Taught(new, before, after, accuracy, made.sha256)


def _opened(current: ExpertSet) -> tuple[Path, RouterModel, OpenClipEncoder]:
    root = current.folder.local
    if root is None:
        raise InputError(f"{current.folder.address} is not a local folder; teach a local copy, then upload it.")
    if current.spec.router.kind != "transformer":
        raise InputError(
            f"The set {current.name!r} has a {current.spec.router.kind!r} router, which is not trained; give it a learned "
            "one first (careedit train router)."
        )
    options = router_options(current.spec, current.folder)
    encoder = load_encoder(options["encoder"], pretrained=options.get("pretrained"), device=training_device())
    return root, load_model(options["config"], options["weights"]).eval().requires_grad_(False), encoder


def _accuracy(model: RouterModel, encoder: OpenClipEncoder, pool: RouterPool, known: Sequence[str]) -> float:
    """Share of feasible edits for which the most probable expert is right; all edits of the pool are for `known` experts."""
    possible = pool.feasible > 0.5
    right = predict(model, encoder, pool).experts.argmax(dim=-1) == pool.targets[:, : len(known)].argmax(dim=-1)
    return float(right[possible].double().mean())


def _distilled(old: RouterModel, encoder: OpenClipEncoder, pool: RouterPool) -> torch.Tensor:
    """Targets of a pool. For old experts they are the mean of the labels and the old router's calibrated probabilities."""
    said = (predict(old, encoder, pool).experts / old.config.temperature).softmax(dim=-1)
    said = torch.cat([said, torch.zeros(len(pool), len(pool.experts) - said.shape[1])], dim=1)
    is_old = pool.targets[:, : len(old.config.experts)].sum(dim=-1, keepdim=True) > 0.5
    return torch.where(is_old, (pool.targets + said) / 2, pool.targets)


def _written(
    model: RouterModel,
    report: TrainReport,
    quality: RouterQuality,
    root: Path,
    current: ExpertSet,
    extra: dict[str, str],
) -> RouterSpec:
    """Write the new router next to the old one, under a name of its own; returns its entry in the set's file."""
    number = 1 + max((int(p.name.rpartition("-")[2]) for p in root.glob("router-*") if p.name[7:].isdigit()), default=1)
    name = f"router-{number}"
    save(
        model, report, root / name, quality, licence=LICENCE, recipe="careedit train router --expert-set",
        data="Examples of the new experts, and rehearsed edits for the old ones.", extra=extra,
    )  # fmt: skip
    stated = current.spec.router.options
    encoder = stated["encoder"]
    spec = transformer_spec(root, router=name, encoder=str(encoder["folder"] if isinstance(encoder, dict) else encoder))
    return spec.model_copy(update={"options": {**stated, **spec.options}})


def _delete_old_files(root: Path, router: RouterSpec) -> None:
    """Delete the replaced router, if it is in a folder of its own inside the set."""
    stated = router.options.get("config")
    if isinstance(stated, dict) and isinstance(stated.get("file"), str):
        folder = (root / str(stated["file"])).parent
        if folder.resolve().parent == root.resolve() and folder.name.startswith("router"):
            shutil.rmtree(folder, ignore_errors=True)
