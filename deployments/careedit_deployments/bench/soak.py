"""`careedit bench soak`: keeps the served platform busy and checks that edits are answered and memory does not grow."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note, progress
from careedit.errors import CareEditError, InputError
from careedit_deployments.bench.memory import Growth, MemoryWatch
from careedit_deployments.bench.servers import ServedConfigOption, in_folder, platform
from careedit_deployments.cli.serve import named_config
from careedit_deployments.config import ServeConfig
from careedit_deployments.errors import OverloadedError

if TYPE_CHECKING:
    from careedit.records import EditRequest
    from careedit_deployments.client import Client

app = typer.Typer(add_completion=False)

VERSION = 1
"""Version of the document that `--json` writes."""
SCENES = 64
"""Number of different requests, which are sent in turn."""
LEAVES_EVERY, LEAVES_AFTER_S = 7, 0.05
"""In one of so many requests, the client disconnects after so many seconds, while its edit is in progress."""

Outcome = Literal["made", "left", "refused", "failed"]


@app.command()
def soak(
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="Minutes to run.")] = 10.0,
    config: ServedConfigOption = "tiny",
    clients: Annotated[
        int, typer.Option("--clients", min=1, max=100, help="Number of clients that send edits without a pause.")
    ] = 8,
    as_json: JsonOption = False,
) -> None:
    """Edit without a pause, with some clients that disconnect, and report outcomes and the memory of each process.

    Fails (exit code 1) if an edit failed or the memory of a process grew. The first quarter is warm-up.
    """
    with tempfile.TemporaryDirectory(prefix="careedit-soak-") as folder:
        settings = in_folder(named_config(config), Path(folder))
        note("Starting Ray, the router, the experts and the HTTP server ...")
        with platform(settings) as url:
            document = work(url, settings, seconds=60 * minutes, clients=clients)
    if as_json:
        emit_json(document)
    else:
        _show(document)
    grown = [one.name for one in _growths(document) if not one.flat]
    outcomes = document["outcomes"]
    assert isinstance(outcomes, Counter)
    if outcomes["failed"] or grown or not outcomes["made"]:
        memory = f"memory grew in {', '.join(grown)}" if grown else "no process grew"
        raise CareEditError(f"The soak failed: {outcomes['made']} made, {outcomes['failed']} failed, {memory}.")


def work(url: str, config: ServeConfig, *, seconds: float, clients: int) -> dict[str, object]:
    """Let `clients` send requests to `url` for `seconds`, and return the document of the run."""
    requests = _requests(config)
    outcomes: Counter[str] = Counter()
    counted = threading.Lock()
    watch, over = MemoryWatch(), threading.Event()

    def send(client: int) -> None:
        turn = client
        while not over.is_set():
            outcome = one(url, requests[turn % len(requests)], leaves=turn % LEAVES_EVERY == 0)
            with counted:
                outcomes[outcome] += 1
            turn += clients + 1  # so that every client sends every request in time

    started = time.monotonic()
    with ThreadPoolExecutor(clients) as pool, progress(f"Editing at {url}", total=seconds) as bar:
        sending = [pool.submit(send, client) for client in range(clients)]
        every = min(5.0, seconds / 60)
        while (left := started + seconds - time.monotonic()) > 0 and not any(task.done() for task in sending):
            watch.look()
            time.sleep(min(every, left))
            bar.advance(every)
        over.set()
        for task in sending:
            task.result()
    watch.look()
    taken = time.monotonic() - started
    return {
        "version": VERSION,
        "seconds": taken,
        "clients": clients,
        "outcomes": outcomes,
        "edits_per_second": outcomes["made"] / taken,
        "processes": watch.growths(),
    }


def one(url: str, request: EditRequest, *, leaves: bool) -> Outcome:
    """Send one request and return its outcome."""
    from careedit_deployments.client import Client

    if leaves:
        with Client(url, timeout=LEAVES_AFTER_S) as client, suppress(CareEditError):
            client.edit(request)
        return "left"
    with Client(url) as client:
        return _answered(client, request)


def _answered(client: Client, request: EditRequest) -> Outcome:
    try:
        client.edit(request)
    except OverloadedError as error:
        time.sleep(error.retry_after)
        return "refused"
    except CareEditError as error:
        note(f"An edit failed: {error}")
        return "failed"
    return "made"


def _requests(config: ServeConfig) -> list[EditRequest]:
    from careedit.experts import load_expert_set
    from careedit.samples import draw_samples

    arm = next((arm for arm in config.arms.values() if not arm.shadow), None)
    if arm is None:
        raise InputError("The configuration has no arm that receives traffic; add one.")
    panel = load_expert_set(arm.expert_set).spec.panel.size
    samples = draw_samples(SCENES, side=panel)
    return [sample.request.model_copy(update={"seed": i}) for i, sample in enumerate(samples)]


def _growths(document: dict[str, object]) -> list[Growth]:
    found = document["processes"]
    assert isinstance(found, list)
    return found


def _show(document: dict[str, object]) -> None:
    emit_table(
        ("process", "pid", "MiB warm", "MiB at the end", "grown", "flat"),
        [
            (one.name, one.pid, f"{one.begin_mib:.0f}", f"{one.end_mib:.0f}", f"{one.grown_mib:+.1f}", one.flat)
            for one in _growths(document)
        ],
    )
    outcomes = document["outcomes"]
    assert isinstance(outcomes, Counter)
    emit(", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))
    emit(f"{document['edits_per_second']:.2f} edits a second")
