"""Export and erase what a server stores of a person, and report how long it is kept. The commands use the stores that the configuration names, also of a running server."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any
from zipfile import ZipFile

import typer

from careedit.cli.files import check_outputs
from careedit.cli.output import JsonOption, emit, emit_json, emit_table, keeping, note
from careedit.errors import InputError
from careedit_deployments.cli.ab import ConfigOption, day_of, operator_name, with_store
from careedit_deployments.cli.serve import named_config
from careedit_deployments.edits.erasure import Receipt
from careedit_deployments.edits.erasure import erase as erase_data
from careedit_deployments.edits.personal_export import export_files, find_data, zipped
from careedit_deployments.state.blobs import open_blobs
from careedit_deployments.state.pseudonyms import Pseudonyms
from careedit_deployments.state.records import ANONYMOUS
from careedit_deployments.state.store import Store

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def privacy() -> None:
    """Export and erase what a server stores of a person, and report how long it is kept."""


TenantOption = Annotated[
    str, typer.Option(metavar="ID", help="Id of the tenant; anonymous for what was made without keys.")
]
UserOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of the user, as clients send it, or the pseudonym. Default: all users."),
]


@app.command("export")
def export_command(
    config: ConfigOption,
    tenant: TenantOption,
    out: Annotated[Path, typer.Option(metavar="FOLDER|FILE.zip", help="New folder, or zip file, to write.")],
    user: UserOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a copy of what is stored of a user: JSON, image files, and a manifest with counts and hashes.

    It has everything that `careedit privacy erase` would delete, and the ids of entries of the audit log.
    """
    if out.exists() and out.suffix != ".zip":
        raise InputError(f"The output {str(out)!r} exists; give a new folder, or a name that ends in .zip.")
    check_outputs([out], [])
    settings = named_config(config)
    blobs = open_blobs(settings.state)
    staged = out.with_name(f".{secrets.token_hex(8)}{out.suffix}")
    manifest: dict[str, Any] = {}

    async def export(store: Store) -> None:
        names = await _names(store, Pseudonyms(settings.state, blobs), tenant, user)
        data = await find_data(store, tenant, names)
        files = export_files(store, blobs, data, tenant, whole=names is None, actor=operator_name())
        if out.suffix == ".zip":
            private = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(private, "wb") as archive:
                async for part in zipped(files):
                    archive.write(part)
            with ZipFile(staged) as whole:
                manifest.update(json.loads(whole.read("manifest.json")))
            return
        staged.mkdir(mode=0o700)
        async for name, content in files:
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).write_bytes(content)
        manifest.update(json.loads(content))

    try:
        with_store(settings, export)
        os.replace(staged, out)
    except OSError as error:
        raise InputError(f"The output {str(out)!r} cannot be written ({error.strerror}); choose another.") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        with suppress(OSError):
            staged.unlink()
    if as_json:
        emit_json(manifest)
        return
    emit_table(("kind", "exported"), [(kind, str(count)) for kind, count in manifest["kinds"].items()])
    emit(f"The export is in {out}.")


@app.command("report")
def report_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Show what is stored, for how long it is kept, and what the cleanup of the server deleted last."""
    found = with_store(named_config(config), lambda store: store.retention.report())
    if as_json:
        emit_json(found.model_dump(mode="json"))
        return
    rows = [(kind, f"{kept.days:g}", str(kept.stored), day_of(kept.oldest)) for kind, kept in found.kinds.items()]
    emit_table(("kind", "kept for days", "stored", "oldest"), rows)
    for tenant, own in found.tenants.items():
        times = ", ".join(f"{kind} {days:g}" for kind, days in own.model_dump(exclude_none=True).items())
        emit(f"{tenant} has days of its own: {times}.")
    deleted = ", ".join(f"{count} {kind}" for kind, count in found.swept.items() if count)
    emit(
        "The cleanup has not deleted anything yet."
        if found.swept_at is None
        else f"The last cleanup that deleted something, on {day_of(found.swept_at)}, deleted {deleted}."
    )


@app.command("erase")
def erase_command(
    config: ConfigOption,
    tenant: TenantOption,
    user: UserOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase jobs, sessions, images, edits, feedback and assignments of a user, and print a receipt.

    Jobs that have not ended are cancelled first. Tenant, keys, webhook endpoints and the audit log stay.
    """
    settings = named_config(config)
    blobs = open_blobs(settings.state)

    async def erase(store: Store) -> Receipt:
        names = await _names(store, Pseudonyms(settings.state, blobs), tenant, user)
        return await erase_data(store, blobs, tenant, names, actor=operator_name())

    with keeping(lambda: "what was erased stays erased; run the same command again to erase the rest."):
        receipt = with_store(settings, erase)
    if as_json:
        emit_json(receipt.model_dump(mode="json"))
        return
    emit_table(("kind", "erased", "sha256"), [(k, str(e.count), e.sha256) for k, e in receipt.kinds.items()])
    emit(f"The receipt is {receipt.id}.")
    if not receipt.overwritten:
        note("The file of the database was in use all the time, so copies of deleted rows may be in it; erase again.")
    if not any(erased.count for erased in receipt.kinds.values()):
        note("Nothing was stored; check the name and the tenant if that is a surprise.")


async def _names(store: Store, users: Pseudonyms, tenant: str, user: str | None) -> tuple[str, ...] | None:
    """The stored names of a user of an existing tenant; None: all users. Raises `NotFoundError`."""
    if tenant != ANONYMOUS:
        await store.tenants.get(tenant)
    return None if user is None else await users.forms(tenant, user)
