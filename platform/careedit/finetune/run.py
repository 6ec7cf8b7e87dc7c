"""From own rows to an expert in a folder: adapter, manifest, model card, report, loss curve.

OUT/adapter.safetensors, expert.yaml    what `careedit experts add OUT` reads
OUT/README.md, report.json, loss.png    the model card and its data
OUT/problems.csv                        bad rows, if there are any
OUT/work/                               checkpoint and latents, from which a rerun continues
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from careedit.editing import Family
from careedit.errors import CareEditError, InputError, ManifestError
from careedit.experts import BaseReference, ExpertManifest, PanelSpec, make_manifest, save_adapter, shapes_of
from careedit.experts.manifest import MANIFEST_FILE
from careedit.finetune.card import Card, write_card
from careedit.finetune.curve import check_curve
from careedit.finetune.data import (
    Columns,
    Plan,
    Problem,
    RowRules,
    Table,
    check_rows,
    find_columns,
    open_table,
    refusal,
)
from careedit.finetune.data import write_problems as list_problems
from careedit.finetune.data.check import save_json
from careedit.finetune.data.rows import Align
from careedit.finetune.expert import BATCH, RANK, STEPS, Trained, checkpoint_name, encode_rows, own_config, train_own
from careedit.finetune.loop import TrainReport, kept_format
from careedit.finetune.memory import estimate, shortage
from careedit.finetune.precision import NumberFormat, choose, using
from careedit.finetune.subject import PANELS, Subject, find_subject, load_subject
from careedit.loading import find_device
from careedit.record import error_sentence

LARGEST_RANK = 1024
"""Maximum rank. A LoRA of a higher rank costs about as much as the layers that it changes."""
ADAPTER_FILE, REPORT_FILE = "adapter.safetensors", "report.json"
PROBLEMS_FILE, WORK = "problems.csv", "work"
Checking = Callable[[int], AbstractContextManager[Callable[[], None]]]
"""A context for the check of so many rows; its value is called after each of them."""


@dataclass(frozen=True, slots=True)
class OwnRun:
    """The options of one run."""

    name: str
    """Name of the new expert."""
    data: Path
    """Folder or file with the rows."""
    base: str
    """The base: an expert set's name or folder, a model's folder, or a hub id."""
    out: Path
    """Folder to which the result is written."""
    columns: dict[str, str] = field(default_factory=dict)
    """Column name by role. Needed only for names that are not recognised."""
    align: Align = "refuse"
    """What to do with a target whose shape differs from its source's. Default: refuse the row."""
    masks: bool = True
    """Whether the mask column is used. Default: yes."""
    on_bad: Literal["refuse", "skip"] = "refuse"
    """Whether bad rows end the run before training (default) or are skipped."""
    held_out: float = 0.05
    """Share of rows kept for the validation loss. Default: 0.05."""
    rank: int = RANK
    """Rank of the LoRA, 1 to 1024. Default: 16."""
    steps: int = STEPS
    """Number of optimizer steps. Default: 1000."""
    batch: int = BATCH
    """Number of rows per step. Default: 8."""
    learning_rate: float | None = None
    """Peak learning rate. Default: 2e-3 for a small base, 1e-4 for a large one."""
    seed: int = 0
    """Seed of first weights, order and noise. Default: 0."""
    checkpoint_seconds: float = 60.0
    """Wall-clock seconds between two checkpoints, at least. Default: 60."""
    checkpoint_gradients: bool = False
    """Whether activations are computed a second time instead of kept: less memory, more time. Default: no."""
    panel: int | None = None
    """Panel side in pixels, for a base without an expert set. Default: 512, or 1024 if the base reads pictures as tokens."""
    max_sequence_length: int | None = None
    """Maximum text tokens per prompt, for a base without an expert set. Default: the family's maximum."""
    device: str | None = None
    """Device to train on. Default: cuda if available, otherwise cpu."""
    dtype: str | None = None
    """Number format of matrix products and of the frozen base: float32, bfloat16, or float16 (products in bfloat16).

    Default: products in the checkpoint's format or else the faster one; the base in bfloat16 only on cuda."""
    competence: str | None = None
    """For the manifest: what the expert is for, in one word. Default: its name."""
    description: str | None = None
    """For the manifest: one sentence. Default: the number of rows."""
    handles: tuple[str, ...] = ()
    """For the manifest: edit kinds and keywords. Default: none."""
    licence: str = "unknown"
    """For the manifest: licence of the weights. Default: unknown."""


@dataclass(frozen=True, slots=True)
class OwnResult:
    """The result of a run."""

    manifest: ExpertManifest
    """Manifest of the new expert."""
    plan: Plan
    """What was done with each row."""
    trained: Trained
    """The adapter, the report and the losses."""
    document: dict[str, Any]
    """The content of the file report.json."""


def run(
    wanted: OwnRun,
    *,
    checking: Checking = lambda _: nullcontext(lambda: None),
    report_problems: Callable[[tuple[Problem, ...]], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> OwnResult:
    """Check, encode, train, write. A run that was stopped continues.

    `report_problems` receives the bad rows before they are refused or skipped, `note` messages about the number format and the memory.
    Raises `InputError` or `ExpertError` for wrong input before the training, and `CareEditError` if the training fails.
    """
    _check_manifest(wanted)
    check_curve()
    table = open_table(wanted.data)
    columns = find_columns(table.columns, wanted.columns)
    subject = find_subject(wanted.base, panel=wanted.panel, max_sequence_length=wanted.max_sequence_length)
    device = str(find_device(wanted.device))
    number_format = _number_format(wanted, device)
    dtype = _base_format(wanted, device, number_format)
    note(f"Number format: {number_format}; the frozen base is kept in {str(dtype).removeprefix('torch.')}.")
    with using(number_format):
        base = load_subject(subject, device, dtype)
        return _run(wanted, table, columns, subject, base, checking, report_problems, note)


def _run(
    wanted: OwnRun,
    table: Table,
    columns: Columns,
    subject: Subject,
    base: Family,
    checking: Checking,
    report_problems: Callable[[tuple[Problem, ...]], None],
    note: Callable[[str], None],
) -> OwnResult:
    panel = subject.panel or PanelSpec(size=wanted.panel or PANELS[base.facts.layout], multiple=base.multiple)
    if panel.size % base.multiple:
        raise InputError(
            f"The panel side {panel.size} is not a multiple of the base's {base.multiple}; choose another one."
        )
    rules = RowRules(panel, wanted.align, wanted.masks)
    config = own_config(
        base,
        steps=wanted.steps,
        learning_rate=wanted.learning_rate,
        seed=wanted.seed,
        checkpoint_seconds=wanted.checkpoint_seconds,
    )
    work = wanted.out / WORK
    settings = {
        "data": table.identity(),
        "columns": columns.given(),
        "panel": panel.model_dump(mode="json"),
        **{key: getattr(wanted, key) for key in ("name", "align", "masks", "held_out", "rank", "batch")},
        "base": [subject.path, subject.revision, shapes_of(base.transformer, base.facts, base.options).fingerprint],
        "start": [subject.start, subject.noise_scale],
        "dtype": str(base.dtype),
        "device": base.device.type,
        "config": asdict(config) | {"betas": list(config.betas)},
    }
    plan = _plan(work, settings)
    if plan is None:
        with checking(len(table)) as done:
            plan = check_rows(table, columns, rules, base, held_out=wanted.held_out, done=done)
    list_problems(plan.problems, wanted.out / PROBLEMS_FILE)
    report_problems(plan.problems)
    if not plan.planned or (plan.problems and wanted.on_bad == "refuse"):
        raise refusal(plan.problems, plan.rows, wanted.out / PROBLEMS_FILE)
    work.mkdir(parents=True, exist_ok=True)
    save_json({"settings": settings, "plan": plan.document()}, work / "run.json")
    note(_memory(wanted, base, plan))
    pools, held_out = encode_rows(
        table, columns, rules, plan, base, work / "pools", start=subject.start, noise_scale=subject.noise_scale
    )
    trained = train_own(
        wanted.name, base, pools, held_out, work, config,
        rank=wanted.rank, batch=wanted.batch, checkpoint_gradients=wanted.checkpoint_gradients,
    )  # fmt: skip
    return _write(wanted, subject, base, columns, plan, trained)


def _memory(wanted: OwnRun, base: Family, plan: Plan) -> str:
    """What the run needs, and a warning if the device has less."""
    pixels = max(row.pixels for row in plan.planned)
    memory = estimate(
        base, rank=wanted.rank, batch=wanted.batch, pixels=pixels, checkpoint_gradients=wanted.checkpoint_gradients
    )
    return f"{memory} {shortage(memory, base)}".rstrip()


def _number_format(wanted: OwnRun, device: str) -> NumberFormat:
    """The format of `--dtype`, otherwise that of this run's checkpoint, otherwise the faster one."""
    if wanted.dtype not in (None, "float32", "bfloat16", "float16"):
        raise InputError(f"The number format {wanted.dtype!r} is unknown; use float32, bfloat16 or float16.")
    if wanted.dtype is not None:
        return choose(device, "float32" if wanted.dtype == "float32" else "bfloat16")
    return choose(device, kept=kept_format(wanted.out / WORK / f"{checkpoint_name(wanted.name)}.ckpt"))


def _base_format(wanted: OwnRun, device: str, number_format: NumberFormat) -> torch.dtype:
    half = device.startswith("cuda") and number_format.name == "bfloat16"
    dtype: torch.dtype = getattr(torch, wanted.dtype or ("bfloat16" if half else "float32"))
    return dtype


def _check_manifest(wanted: OwnRun) -> None:
    """Raises, before the training, for values that the manifest would refuse after it."""
    if not 1 <= wanted.rank <= LARGEST_RANK:
        raise InputError(f"The rank {wanted.rank} is outside 1 to {LARGEST_RANK}; choose another one.")
    if not 0 <= wanted.held_out < 1:
        raise InputError(f"The held-out share {wanted.held_out} is not between 0 and 1; 0.05 is usual.")
    try:
        ExpertManifest(
            name=wanted.name,
            competence=wanted.competence or wanted.name,
            description=wanted.description or "-",
            handles=wanted.handles,
            file=ADAPTER_FILE,
            sha256="0" * 64,
            rank=wanted.rank,
            alpha=float(wanted.rank),
            format="diffusers",
            base=BaseReference(name="-", fingerprint="0" * 64),
            licence=wanted.licence,
            provenance="-",
        )
    except ValidationError as error:
        raise ManifestError(error_sentence(error, "The expert's manifest")) from error


def _plan(work: Path, settings: dict[str, Any]) -> Plan | None:
    """The plan of an earlier run in `work`, if any. Raises `InputError` if that run had other settings."""
    path = work / "run.json"
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_text("utf-8"))
        held, plan = document["settings"], Plan.from_document(document["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} cannot be read; delete the folder {work} and start again.") from None
    now = json.loads(json.dumps(settings))
    # The number format may change between two parts of a run (--dtype); the loop reports it.
    changed = sorted(key for key in {*held, *now} - {"dtype"} if held.get(key) != now.get(key))
    if changed:
        raise InputError(
            f"The folder {work} has a run with other settings ({', '.join(changed)}); choose another --out, or delete "
            "that folder to start again."
        )
    return plan


def _write(wanted: OwnRun, subject: Subject, base: Family, columns: Columns, plan: Plan, trained: Trained) -> OwnResult:
    out = wanted.out
    rows = dict(plan.summary())
    learned = rows["trained on"]
    source = f"{learned:,} rows from {wanted.data.name!r}"
    shapes = shapes_of(base.transformer, base.facts, base.options)
    try:
        save_adapter(
            out / ADAPTER_FILE,
            {key: value.half() for key, value in trained.adapter.items()},
            wanted.rank,
            float(wanted.rank),
        )
        manifest = make_manifest(
            out / ADAPTER_FILE,
            shapes,
            name=wanted.name,
            competence=wanted.competence or wanted.name,
            description=wanted.description or f"Trained on {source}.",
            handles=wanted.handles,
            base_name=f"{subject.name} ({shapes.label})",
            licence=wanted.licence,
            provenance=f"careedit train expert --data: {source}, {trained.report.config.steps} steps.",
        )
        manifest.write(out / MANIFEST_FILE)
        document = _document(columns, plan, trained)
        save_json(document, out / REPORT_FILE)
        write_card(out, _card(wanted, subject, plan, trained), trained.report, licence=wanted.licence)
    except OSError as error:
        raise CareEditError(f"The expert cannot be written to {out} ({error}); free some space and rerun.") from error
    return OwnResult(manifest, plan, trained, document)


def _document(columns: Columns, plan: Plan, trained: Trained) -> dict[str, Any]:
    before, after = trained.validation or (None, None)
    return {
        "version": 1,
        "training": asdict(trained.report),
        "columns": columns.given(),
        "rows": dict(plan.summary()),
        "validation": {"base_loss": before, "expert_loss": after},
    }


def _card(wanted: OwnRun, subject: Subject, plan: Plan, trained: Trained) -> Card:
    quality = {}
    if trained.validation:
        before, after = trained.validation
        held_out = sum(row.held_out for row in plan.planned)
        quality[f"Loss on {held_out:,} held-out rows"] = f"{after:.4f} (base alone: {before:.4f})"
    report: TrainReport = trained.report
    return Card(
        title=f"Expert: {wanted.name}",
        summary=f"{wanted.description or 'A LoRA expert.'} Rank {wanted.rank}, for {subject.name}.",
        recipe=f"careedit train expert --data {wanted.data.name} --base {wanted.base} --rank {wanted.rank} "
        f"--name {wanted.name} --steps {report.config.steps} --batch {wanted.batch} --seed {wanted.seed}",
        data=", ".join(f"{what} {count:,}" for what, count in plan.summary()),
        quality=quality or {"Held-out rows": "none"},
        limits=(
            "Fits no other base.",
            "Pictures and instructions unlike those rows are not measured; look at edits before you rely on them.",
        ),
        compute=f"{report.seconds / 60:.1f} minutes",
    )
