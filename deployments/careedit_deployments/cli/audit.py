"""Check the audit log of a server. The command reads the database that the configuration names."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit, emit_json
from careedit.errors import InputError
from careedit_deployments.cli.ab import ConfigOption, with_store
from careedit_deployments.cli.serve import named_config
from careedit_deployments.state.audit import AuditHead
from careedit_deployments.state.store import Store

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def audit() -> None:
    """Check the audit log of a server."""


@app.command("verify")
def verify_command(
    config: ConfigOption,
    head: Annotated[
        list[str] | None,
        typer.Option(metavar="NUMBER:SHA256", help="A head of an earlier time, from a log. Give any number of them."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that no entry was changed or removed, and print the head. Exit code 1 if the log was changed.

    Entries that were deleted at the end, and a log that was hashed again, are found only with an earlier head.
    """
    heads = [_head(given) for given in head or ()]

    async def verify(store: Store) -> tuple[AuditHead, AuditHead]:
        return await store.audit.verify(heads), await store.audit.start()

    found, start = with_store(named_config(config), verify)
    entries = found.number - start.number
    if as_json:
        emit_json({"version": 1, "entries": entries, "deleted": start.number, "head": str(found)})
        return
    emit(f"The audit log is whole: {entries} entries. Its head is {found}")
    if start.number:
        emit(f"The {start.number} entries before them were deleted because of their age.")


def _head(given: str) -> AuditHead:
    if not re.fullmatch(r"[0-9]{1,9}:[0-9a-f]{64}", given):
        raise InputError(f"--head is {given[:80]!r}; give NUMBER:SHA256, as the server logs it.")
    number, _, sha256 = given.partition(":")
    return AuditHead(number=int(number), sha256=sha256)
