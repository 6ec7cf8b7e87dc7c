"""Small LoRAs that a claim trains in its run, by the recipe of `careedit train expert --data`; a stopped run continues."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from careedit.editing import Family
from careedit.experts import LoraState, PanelSpec, make_manifest, save_adapter
from careedit.experts.manifest import MANIFEST_FILE
from careedit.files import json_digest, write_atomic
from careedit.finetune.data import Row, RowRules
from careedit.finetune.expert import Rows, encode_bucket, own_config, train_own
from careedit.finetune.subject import Subject as BaseSubject
from careedit.finetune.subject import load_subject
from careedit.images import fit_panel
from careedit_tiny.evaluation.claims.claim import NotMeasuredError
from careedit_tiny.evaluation.claims.samples import NEWCOMER, brand_sample
from careedit_tiny.evaluation.claims.setting import Setting
from careedit_tiny.models.family import PANEL
from careedit_tiny.world.samples import Sample

BATCH = 8
"""Samples per step."""
ROWS = 512
"""Maximum number of samples of one lesson. A longer training sees them several times."""
MOST_STEPS = 2_000
"""Maximum number of steps of one LoRA, whatever the budget."""
TIMED = 3
"""Steps that are timed to find out how long one takes."""
VERSION = 1
"""Part of the name of a claim's training folder. Raise it when the same plan would give other weights."""

Draw = Callable[[int], Sample]
"""The training sample of an index."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a LoRA learns from."""

    name: str
    """Its name, in which the name of its encoded samples begins."""
    draw: Draw
    """Draws the training sample of an index."""


@contextmanager
def training() -> Iterator[None]:
    """Gradients inside a run of measurements, which does without them elsewhere."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


class Workshop:
    """Trains the LoRAs of one claim in a folder of its own, within its share of the budget."""

    def __init__(self, setting: Setting, claim: int, *, units: float, rank: int) -> None:
        """`units` is the claim's training in LoRAs of a full number of steps; `rank` the largest rank, which is timed."""
        self.setting = setting
        expert_set = setting.subject.editor.expert_set
        content = [VERSION, expert_set.sha256, setting.minutes, setting.seed, units, rank]
        self.folder = setting.out / "training" / f"claim-{claim}-{json_digest(content)[:8]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.units, self.rank = units, rank

    @cached_property
    def base(self) -> Family:
        """The set's base with frozen weights. Raises `NotMeasuredError` for a base that cannot be trained on."""
        editor = self.setting.subject.editor
        expert_set, loaded = editor.expert_set, editor.engine.base
        spec = expert_set.spec
        subject = BaseSubject(
            expert_set.base_path,
            expert_set.name,
            spec.base.max_sequence_length,
            spec.base.revision,
            spec.panel,
            spec.defaults.start,
            spec.defaults.noise_scale,
        )
        return load_subject(subject, str(loaded.device), loaded.dtype)

    def full_steps(self) -> int:
        """Steps of a LoRA of full length: what the budget allows, measured once and then kept for every resumed run."""
        path = self.folder / "plan.json"
        if not path.exists():
            seconds = self._seconds_per_step()
            steps = max(1, min(MOST_STEPS, int(60 * self.setting.minutes / (seconds * self.units))))
            write_atomic(path, json.dumps({"steps": steps, "seconds_per_step": seconds}))
        return int(json.loads(path.read_text("utf-8"))["steps"])

    def train(
        self, name: str, lessons: Sequence[Lesson], steps: int, rank: int, start: Mapping[str, Tensor] | None = None
    ) -> Path:
        """Train LoRA `name` on the lessons in equal shares; returns its folder. A finished one is not trained again.

        `start` is the peft state of a LoRA to train further.
        """
        made = self.folder / name
        if not (made / MANIFEST_FILE).exists():
            rows = max(1, min(ROWS, steps * BATCH // len(lessons)))
            pools = {lesson.name: self._pool(lesson, rows) for lesson in lessons}
            self._train(name, pools, steps, rank, start, made)
        return made

    def _train(
        self,
        name: str,
        pools: Mapping[str, Rows],
        steps: int,
        rank: int,
        start: Mapping[str, Tensor] | None,
        made: Path,
    ) -> None:
        config = own_config(self.base, steps=steps, seed=self.setting.seed)
        with training():
            trained = train_own(name, self.base, pools, {}, self.folder, config, rank=rank, batch=BATCH, adapter=start)
        made.mkdir(exist_ok=True)
        file = made / "adapter.safetensors"
        save_adapter(file, {key: value.half() for key, value in trained.adapter.items()}, rank, float(rank))
        expert_set = self.setting.subject.editor.expert_set
        make_manifest(
            file,
            expert_set.shapes,
            name=name,
            competence=name,
            description=f"Trained by careedit eval claims on {', '.join(pools)}.",
            handles=(),
            base_name=expert_set.name,
            licence="Apache-2.0",
            provenance=f"careedit eval claims: {steps} steps of {BATCH} drawn samples, seed {self.setting.seed}.",
        ).write(made / MANIFEST_FILE)
        (self.folder / f"expert-{name}.ckpt").unlink(missing_ok=True)

    def _pool(self, lesson: Lesson, count: int, folder: Path | None = None) -> Rows:
        spec = self.setting.subject.editor.expert_set.spec
        panel: PanelSpec = spec.panel
        side = fit_panel((PANEL, PANEL), panel.size, panel.fit, panel.multiple).panel
        panels = 2 if lesson.draw(0).reference is None else 3
        # The number of samples is in the name: a pool is read back as all files of its name.
        bucket = f"{lesson.name}-{count}-{panels}x{side[0]}x{side[1]}"
        return encode_bucket(
            bucket,
            lambda index: _row(lesson.draw(index)),
            count,
            RowRules(panel),
            self.base,
            folder or self.folder / "pools",
            start=spec.defaults.start,
            noise_scale=spec.defaults.noise_scale,
        )

    def _seconds_per_step(self) -> float:
        """Time a few steps of the largest rank in a folder of their own."""
        lesson = Lesson("timing", lambda index: brand_sample(NEWCOMER, index, "train"))
        with TemporaryDirectory(dir=self.folder, prefix=".timing-") as name, training():
            folder = Path(name)
            pools = {lesson.name: self._pool(lesson, BATCH, folder / "pools")}
            config = own_config(self.base, steps=TIMED, seed=self.setting.seed)
            # By the loop's own clock, which does not count what is measured around it.
            report = train_own("timing", self.base, pools, {}, folder, config, rank=self.rank, batch=BATCH).report
        return max(1e-3, report.seconds / TIMED)


def state_of(lora: LoraState) -> tuple[int, dict[str, Tensor]]:
    """Rank and peft state of a LoRA for training further, its scale folded into B.

    Raises `NotMeasuredError` if its modules have several ranks.
    """
    ranks = {module.rank for module in lora.modules.values()}
    if len(ranks) != 1:
        raise NotMeasuredError(
            "The set's unified LoRA has several ranks, and only one of a single rank can be trained further."
        )
    state: dict[str, Tensor] = {}
    for path, module in lora.modules.items():
        state[f"{path}.lora_A.weight"] = module.down.float()
        state[f"{path}.lora_B.weight"] = module.up.float() * module.scale
    return ranks.pop(), state


def _row(sample: Sample) -> Row:
    return Row(
        source=sample.source_image(PANEL),
        target=sample.target_image(PANEL),
        mask=sample.mask_image(PANEL),
        reference=sample.reference_image(PANEL),
        instruction=sample.instruction,
        digest=sample.id,
    )
