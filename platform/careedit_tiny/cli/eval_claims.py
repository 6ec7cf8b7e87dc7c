"""Test what the papers claim about routed experts, on drawn scenes: forgetting, interference, identity, phrasing and more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from careedit.cli.bench import DtypeOption, torch_dtype
from careedit.cli.editors import load_scorer, quieten
from careedit.cli.files import write_report
from careedit.cli.output import JsonOption, emit_table, keeping, note, progress
from careedit.errors import InputError
from careedit_tiny.cli.eval_quality import (
    DeviceOption,
    SeedOption,
    SetOption,
    StepsOption,
    ThreadsOption,
    kept_in,
    note_unreadable,
)

if TYPE_CHECKING:
    from careedit_tiny.evaluation.claims import Claim, Verdict

app = typer.Typer(add_completion=False)

MINUTES = 90.0
"""Default minutes of training, for all claims that train together."""


@app.command("claims")
def claims(
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FOLDER", help="Folder of the results; a rerun of the same command continues there."
        ),
    ],
    chosen: Annotated[
        str | None, typer.Option("--claims", help="Numbers of the claims, with commas; default: all, 9 to 17.")
    ] = None,
    expert_set: SetOption = "tiny",
    unified: Annotated[
        Path | None,
        typer.Option("--unified", metavar="FOLDER", help="The unified LoRA; default: the set's baselines/unified."),
    ] = None,
    n: Annotated[int, typer.Option("--n", help="Number of test scenes per claim.")] = 200,
    seed: SeedOption = 0,
    minutes: Annotated[
        float, typer.Option("--budget-minutes", min=0.01, help="Minutes of training, shared by the claims that train.")
    ] = MINUTES,
    judge: Annotated[
        str, typer.Option("--judge", help="The judge of claim 16: tiny, a folder, a hub id, or none.")
    ] = "tiny",
    steps: StepsOption = None,
    batch: Annotated[int, typer.Option("--batch", help="Edits denoised together, 1 to 8.")] = 8,
    threads: ThreadsOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test claims of the papers on an expert set: the figure with its interval, and whether the claim holds here.

    Writes claims.json, claims.md, claims.html and pictures to the folder. Claims 9, 10 and 11 train small LoRAs in the run. A
    claim that does not hold is reported; the exit code is 0.
    """
    from careedit.editor import MAX_BATCH
    from careedit.records import MAX_STEPS
    from careedit_tiny.evaluation.claims import Setting, measure_claims
    from careedit_tiny.evaluation.claims.page import write_pages
    from careedit_tiny.evaluation.common import LIMIT, check_range
    from careedit_tiny.evaluation.filter.page import figure_class
    from careedit_tiny.evaluation.quality import load_subject

    wanted = _claims(chosen)
    check_range(
        [
            ("--n", n, 1, LIMIT),
            ("--seed", seed, 0, 2**31),
            ("--steps", steps, 1, MAX_STEPS),
            ("--batch", batch, 1, MAX_BATCH),
            ("--threads", threads, 1, 1024),
        ]
    )
    figure_class()  # a plot after an hour needs it
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {str(out)!r} cannot be used ({error.strerror}); choose another.") from None
    quieten()
    with progress("Loading"):
        subject = load_subject(expert_set, unified=unified, steps=steps, device=device, dtype=torch_dtype(dtype))
        scorer = load_scorer(judge, device=device) if judge != "none" and any(one.id == 16 for one in wanted) else None
    share = minutes / max(1, sum(one.trains for one in wanted))
    with keeping(lambda: kept_in(out)), progress("Edits") as bar:

        def report(claim: Claim, verdict: Verdict | None) -> None:
            bar.describe(f"Claim {claim.id}: {claim.title}")
            if verdict is not None:
                note(f"Claim {claim.id}, {claim.title}: {verdict.outcome}. {verdict.reason}")

        setting = Setting(subject, out, n, seed, share, batch, scorer, bar.advance)
        note_unreadable(setting.bench.cache.unreadable)
        document = measure_claims(wanted, setting, threads=threads, report=report)
    write_pages(document, out)
    write_report(document, lambda: _show(document), out=out / "claims.json", as_json=as_json)


def _claims(text: str | None) -> list[Claim]:
    from careedit_tiny.evaluation.claims import CLAIMS

    if text is None:
        return list(CLAIMS.values())
    known = {str(number): claim for number, claim in CLAIMS.items()}
    parts = {part.strip() for part in text.split(",")}
    if unknown := sorted(parts - set(known)):
        raise InputError(f"{unknown[0]!r} is not a claim; the claims are {', '.join(known)}.")
    return [claim for number, claim in known.items() if number in parts]


def _show(document: dict[str, Any]) -> None:
    from careedit_tiny.evaluation.claims.claim import Figure

    rows = []
    for row in document["claims"]:
        found = (row["finding"] or {"figures": {}})["figures"]
        figures = [str(Figure(**found[name])) for name in row["decided_by"] if name in found]
        rows.append((row["id"], row["title"], "; ".join(figures) or "-", row["verdict"]))
    emit_table(("claim", "title", "figures", "verdict"), rows)
