"""API keys of a server: make one (it is shown once), list them, revoke one. A running server heeds it from the next request.

Everything is read from, and written to, the database that the configuration names.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note
from careedit_deployments.cli.ab import ConfigOption, operator_name, with_store
from careedit_deployments.cli.serve import find_config
from careedit_deployments.config import ServeConfig
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
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is, for people.")],
    config: ConfigOption,
    per_minute: Annotated[
        int | None, typer.Option(min=1, help="Requests per minute; by default the configuration's.")
    ] = None,
    at_once: Annotated[int | None, typer.Option(min=1, help="Edits in hand; by default the configuration's.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and show it, this once; only its hash is kept."""
    key, record = make_key(name, requests_per_minute=per_minute, concurrent_requests=at_once)

    async def add(store: Store) -> None:
        await store.keys.add(record)
        await store.audit.add(operator_name(), "key.added", record.id, name=name)

    with_store(ServeConfig.from_yaml(find_config(config)), add)
    if as_json:
        emit_json({"version": 1, "key": key, "id": record.id})
        return
    emit(key)
    note(f"This is the key of {name}, shown this once; revoke it with: careedit keys revoke {record.id}")


@app.command("list")
def list_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Show every key, revoked ones too, without the keys themselves."""
    records = with_store(ServeConfig.from_yaml(find_config(config)), lambda store: store.keys.all())
    if as_json:
        emit_json({"version": 1, "keys": [record.model_dump(mode="json", exclude={"sha256"}) for record in records]})
        return
    emit_table(("id", "name", "per minute", "at once", "made", "state"), [_row(record) for record in records])


@app.command("revoke")
def revoke_command(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `careedit keys list` shows it.")],
    config: ConfigOption,
) -> None:
    """Refuse a key from now on."""

    async def revoke(store: Store) -> None:
        if not await store.keys.revoke(key_id):
            raise NotFoundError(f"There is no good key {key_id!r}; `careedit keys list` shows them.")
        await store.audit.add(operator_name(), "key.revoked", key_id)

    with_store(ServeConfig.from_yaml(find_config(config)), revoke)
    emit(f"{key_id} is revoked.")


def _row(record: KeyRecord) -> tuple[str, ...]:
    made = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d")
    limits = (record.requests_per_minute, record.concurrent_requests)
    return (
        record.id,
        record.name,
        *("-" if limit is None else str(limit) for limit in limits),
        made,
        "good" if record.revoked is None else "revoked",
    )
