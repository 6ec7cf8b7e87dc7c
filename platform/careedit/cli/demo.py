"""Edit 24 unseen scenes of every kind and show them on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note, progress

app = typer.Typer()


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the page and the pictures.")] = Path("demo"),
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="How many scenes, the kinds in turn.")] = 24,
    first: Annotated[int, typer.Option("--first", min=0, max=900_000, help="First scene of the test split.")] = 0,
    expert_set: Annotated[
        str, typer.Option("--expert-set", help="Name, folder or address of the expert set.")
    ] = "tiny",
    as_json: JsonOption = False,
) -> None:
    """Edit test scenes with routed experts, judge every edit against the exact truth, and write an HTML page."""
    from careedit.editor import load_editor
    from careedit.images import save_image
    from careedit.report import write_edit_page
    from careedit.report.showcase import edit_samples, page_row, score
    from careedit.tiny.samples import draw_samples

    note(f"Loading the expert set {expert_set} ...")
    editor = load_editor(expert_set)
    samples = list(draw_samples(count, "test", first=first))
    with progress(f"Editing {count} scenes", total=count * editor.expert_set.spec.defaults.steps) as bar:
        done = 0

        def on_step(now: int, _: int) -> None:
            nonlocal done
            bar.advance(now - done)
            done = now

        edits = edit_samples(editor, samples, on_step=on_step)
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for edit in edits:
        save_image(edit.result.image, pictures / f"{edit.sample.id}.png")
    page = out / "index.html"
    intro = [
        f"{count} scenes of the tiny world's test split: no scene was trained on, and half of the phrasings are new.",
        "The router picks a LoRA expert on the frozen base; the oracle compares each edit with the exact truth.",
        f"Expert set {editor.expert_set.name} {editor.expert_set.version} ({editor.expert_set.sha256[:12]}).",
    ]
    write_edit_page(page, "careedit: routed edits of unseen scenes", intro, [page_row(edit) for edit in edits])
    result = score(edits)
    if as_json:
        emit_json({"page": page, "pictures": pictures, "expert_set_sha256": editor.expert_set.sha256, **result})
        return
    rows = [(kind, row["right"], row["count"]) for kind, row in result["by_kind"].items()]
    emit_table(("kind", "right", "of"), [*rows, ("all", result["right"], result["count"])])
    emit(f"{result['right']} of {count} edits are what was asked for, and nothing else changed.")
    emit(f"Look at them: {page.resolve()}")
    note('Next: careedit edit PICTURE "remove the red circle", or careedit experts list')
