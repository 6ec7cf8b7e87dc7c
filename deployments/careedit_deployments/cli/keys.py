"""Make, list and revoke the API keys of a server.

The commands read and write the database that the configuration names. A running server applies a change at once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note
from careedit_deployments.cli.ab import ConfigOption, operator_name, with_store
from careedit_deployments.cli.serve import named_config
from careedit_deployments.errors import NotFoundError
from careedit_deployments.http.auth import make_key
from careedit_deployments.state.records import KeyRecord
from careedit_deployments.state.store import Store

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def keys() -> None:
    """Make, list and revoke API keys."""


@app.command("add")
def add_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key's holder.")],
    config: ConfigOption,
    per_minute: Annotated[
        int | None, typer.Option(min=1, help="Maximum requests per minute. Default: the limit of the configuration.")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="Maximum edits in flight. Default: the limit of the configuration.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it. It is shown only once; the server stores its hash."""
    key, record = make_key(name, requests_per_minute=per_minute, concurrent_requests=at_once)

    async def add(store: Store) -> None:
        await store.keys.add(record)
        await store.audit.add(operator_name(), "key.added", record.id, name=name)

    with_store(named_config(config), add)
    if as_json:
        emit_json({"version": 1, "key": key, "id": record.id})
        return
    emit(key)
    note(f"The key of {name} is shown only this time. Revoke it with: careedit keys revoke {record.id}")


@app.command("list")
def list_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """List all keys, including revoked ones. The keys themselves are not shown."""
    records = with_store(named_config(config), lambda store: store.keys.all())
    if as_json:
        emit_json({"version": 1, "keys": [record.model_dump(mode="json", exclude={"sha256"}) for record in records]})
        return
    emit_table(("id", "name", "per minute", "at once", "made", "state"), [_row(record) for record in records])


@app.command("revoke")
def revoke_command(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, from `careedit keys list`.")],
    config: ConfigOption,
) -> None:
    """Refuse a key from now on."""

    async def revoke(store: Store) -> None:
        if not await store.keys.revoke(key_id):
            raise NotFoundError(f"No valid key has the id {key_id!r}; `careedit keys list` shows the ids.")
        await store.audit.add(operator_name(), "key.revoked", key_id)

    with_store(named_config(config), revoke)
    emit(f"{key_id} is revoked.")


def _row(record: KeyRecord) -> tuple[str, ...]:
    made = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d")
    limits = (record.requests_per_minute, record.concurrent_requests)
    return (
        record.id,
        record.name,
        *("-" if limit is None else str(limit) for limit in limits),
        made,
        "valid" if record.revoked is None else "revoked",
    )
