"""Start the served platform, have it edit 24 unseen scenes of every kind, and show them on a page."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note, progress
from careedit_deployments.cli.serve import (
    at_address,
    check_credentials,
    find_config,
    start,
    stop,
    wait_for_signal,
)
from careedit_deployments.config import ServeConfig
from careedit_deployments.credentials import CredentialsConfig

if TYPE_CHECKING:
    from careedit.records import EditRequest

app = typer.Typer()

Answer = TypeVar("Answer")

CLIENTS = 8
"""Requests in flight at once."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the page, the pictures and the server's state.")] = Path(
        "demo"
    ),
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="How many scenes, the kinds in turn.")] = 24,
    first: Annotated[int, typer.Option("--first", min=0, max=900_000, help="First scene of the test split.")] = 0,
    config: Annotated[str, typer.Option("--config", help="Configuration to serve: a YAML file or a name.")] = "tiny",
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port; default: the configuration's, if it is free.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop when the page is written, instead of serving on.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve routed experts, edit test scenes over HTTP, judge every edit against the truth, and write an HTML page.

    The server runs on until it is interrupted, unless --once is given.
    """
    settings = ServeConfig.from_yaml(find_config(config))
    settings = at_address(settings, None, free_port(settings) if port is None else port)
    state = settings.state.model_copy(
        update={
            "database": f"sqlite+aiosqlite:///{(out / 'state' / 'careedit.db').resolve()}",
            "blobs": str((out / "state" / "blobs").resolve()),
        }
    )
    settings = settings.model_copy(update={"state": state})
    (out / "state").mkdir(parents=True, exist_ok=True)
    if settings.credentials is None:
        settings = settings.model_copy(update={"credentials": CredentialsConfig(folder=str(authority(out)))})
    check_credentials(settings)
    note("Starting Ray, the router, the experts and the HTTP server (about half a minute on two cores) ...")
    url = start(settings, None)
    try:
        document = show(url, out, count, first)
        if as_json:
            emit_json(document)
        else:
            tell(url, document)
        if not once:
            note("The server runs on; interrupt (Ctrl-C) to stop it.")
            wait_for_signal(url)
    finally:
        stop(settings)


def authority(out: Path) -> Path:
    """A folder with a private authority, which signs the demo's results; it is made once."""
    from careedit.provenance.authority import write_authority

    folder = out.resolve() / "credentials"
    if not folder.exists():
        write_authority(folder, "careedit demo")
    return folder


def show(url: str, out: Path, count: int, first: int) -> dict[str, object]:
    """Edit `count` scenes at `url`, write the page, and return what was counted."""
    from careedit.files import write_atomic
    from careedit.report import write_edit_page
    from careedit_deployments.client import Client, result_of
    from careedit_tiny.report.showcase import judged, page_row, score
    from careedit_tiny.world.samples import draw_samples, request_for

    samples = list(draw_samples(count, "test", first=first))
    started = time.perf_counter()
    with progress(f"Editing {count} scenes at {url}", total=count) as bar:
        answers = send(Client(url).answer, (request_for(sample) for sample in samples), bar.advance)
    seconds = time.perf_counter() - started
    results = [result_of(answer) for answer in answers]
    edits = judged(samples, results)
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for sample, answer in zip(samples, answers, strict=True):
        # The server's own files: they are signed, and a copy of their pixels is not.
        write_atomic(pictures / f"{sample.id}.png", base64.b64decode(answer.data[0].b64_json or ""), sync=False)
    page = out / "index.html"
    trace = results[0].trace
    intro = [
        f"{count} scenes of the tiny world's test split: no scene was trained on, and half of the phrasings are new.",
        "Each was sent to POST /v1/images/edits; the router picked a LoRA expert on the frozen base, whose replica edited.",
        "The oracle compares each edit with the exact truth.",
        f"Expert set {trace.expert_set} ({trace.expert_set_sha256[:12]}), {count} edits in {seconds:.1f} seconds.",
    ]
    write_edit_page(page, "careedit: routed edits of unseen scenes", intro, [page_row(edit) for edit in edits])
    return {
        "url": url,
        "page": page,
        "pictures": pictures,
        "seconds": seconds,
        "expert_set_sha256": trace.expert_set_sha256,
        **score(edits),
    }


def send(
    edit: Callable[[EditRequest], Answer], requests: Iterable[EditRequest], done: Callable[[], None]
) -> list[Answer]:
    """Every request's answer in their order, `CLIENTS` at a time; the first error is raised."""

    def one(request: EditRequest) -> Answer:
        answer = edit(request)
        done()
        return answer

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(one, requests))


def tell(url: str, document: dict[str, object]) -> None:
    """Say what was made and where to look."""
    by_kind, page = document["by_kind"], document["page"]
    assert isinstance(by_kind, dict)
    assert isinstance(page, Path)
    from careedit.provenance.certificates import AUTHORITY_FILE

    rows = [(kind, row["right"], row["count"]) for kind, row in by_kind.items()]
    emit_table(("kind", "right", "of"), [*rows, ("all", document["right"], document["count"])])
    emit(f"{document['right']} of {document['count']} edits are what was asked for, and nothing else changed.")
    emit(f"Look at them:        {page.resolve()}")
    authority = page.resolve().parent / "credentials" / AUTHORITY_FILE
    if authority.is_file():
        emit(f"Where they are from: careedit provenance show {page.parent / 'pictures'}/PICTURE --trust {authority}")
    emit(f"Try your own:        {url}/")
    emit(f"Arms and experts:    {url}/status")
    emit(f"The API, documented: {url}/docs")


def free_port(config: ServeConfig) -> int:
    """The configuration's port, or 0 where something listens there already."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        taken = probe.connect_ex((config.http.host, config.http.port)) == 0
    return 0 if taken else config.http.port
