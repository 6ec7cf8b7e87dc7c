"""Erase what a server stores of a person. The command changes the stores that the configuration names, also of a running server."""

from __future__ import annotations

from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit, emit_json, emit_table
from careedit_deployments.cli.ab import ConfigOption, operator_name, with_store
from careedit_deployments.cli.serve import named_config
from careedit_deployments.edits.erasure import Receipt
from careedit_deployments.edits.erasure import erase as erase_data
from careedit_deployments.state.blobs import open_blobs
from careedit_deployments.state.pseudonyms import Pseudonyms
from careedit_deployments.state.records import ANONYMOUS
from careedit_deployments.state.store import Store

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def privacy() -> None:
    """Erase what a server stores of a person."""


@app.command("erase")
def erase_command(
    config: ConfigOption,
    tenant: Annotated[
        str, typer.Option(metavar="ID", help="Id of the tenant; anonymous for what was made without keys.")
    ],
    user: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the user, as clients send it, or the pseudonym. Default: all users."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Erase jobs, sessions, images, edits, feedback and assignments of a user, and print a receipt.

    Jobs that have not ended are cancelled first. Tenant, keys, webhook endpoints and the audit log stay.
    """
    settings = named_config(config)
    blobs = open_blobs(settings.state)
    users = Pseudonyms(settings.state, blobs)

    async def erase(store: Store) -> Receipt:
        if tenant != ANONYMOUS:
            await store.tenants.get(tenant)
        names = None if user is None else await users.forms(tenant, user)
        return await erase_data(store, blobs, tenant, names, actor=operator_name())

    receipt = with_store(settings, erase)
    if as_json:
        emit_json(receipt.model_dump(mode="json"))
        return
    emit_table(("kind", "erased", "sha256"), [(k, str(e.count), e.sha256) for k, e in receipt.kinds.items()])
    emit(f"The receipt is {receipt.id}.")
