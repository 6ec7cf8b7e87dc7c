"""Make, list, rotate and revoke the API keys of a server.

The commands read and write the database that the configuration names. A running server applies a change at once; the open
requests of a revoked key end within seconds.
"""

from __future__ import annotations

from typing import Annotated

import typer

from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note
from careedit.errors import InputError
from careedit_deployments.cli.ab import ConfigOption, day_of, operator_name, with_store
from careedit_deployments.cli.serve import named_config
from careedit_deployments.cli.tenants import AtOnceOption, PerMinuteOption
from careedit_deployments.errors import NotFoundError
from careedit_deployments.http.auth import make_key, make_tenant
from careedit_deployments.state.clock import unix_time
from careedit_deployments.state.store import Store
from careedit_deployments.state.tenant_records import SCOPES, KeyRecord, Scope
from careedit_deployments.state.tenants import KeyOfTenant

DAY_S = 24 * 3600.0

KeyArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the key, from `careedit keys list`.")]

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def keys() -> None:
    """Make, list, rotate and revoke API keys."""


@app.command("add")
def add_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key's holder.")],
    config: ConfigOption,
    tenant: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Tenant of the key, from `careedit tenants list`. Default: a new one, NAME."),
    ] = None,
    scopes: Annotated[
        str, typer.Option(metavar="LIST", help="What the key may do: edit, read, admin, operator, separated by commas.")
    ] = "edit,read",
    expires: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="Days until the key expires. Default: never.")
    ] = None,
    per_minute: PerMinuteOption = None,
    at_once: AtOnceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it. It is shown only once; the server stores its hash.

    --per-minute and --at-once are limits of the new tenant.
    """
    if tenant is not None and (per_minute, at_once) != (None, None):
        raise InputError("A tenant has limits, a key has none of its own; use `careedit tenants limit` instead.")
    made = make_tenant(name, requests_per_minute=per_minute, concurrent_requests=at_once) if tenant is None else None
    owner = tenant if made is None else made.id
    assert owner is not None
    end = None if expires is None else unix_time() + expires * DAY_S
    key, record = make_key(name, owner, scopes=_scopes(scopes), expires=end)

    async def add(store: Store) -> None:
        if made is None:
            await store.tenants.get(owner)
        else:
            await store.tenants.add(made)
        await store.keys.add(record)
        await store.audit.add(operator_name(), "key.added", record.id, name=name, tenant=owner, scopes=record.scopes)

    with_store(named_config(config), add)
    _show(key, record, as_json)


@app.command("list")
def list_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """List all keys, including those that are no longer valid. The keys themselves are not shown."""
    found = with_store(named_config(config), lambda store: store.keys.all())
    if as_json:
        emit_json({"version": 1, "keys": [_document(one) for one in found]})
        return
    emit_table(("id", "name", "tenant", "scopes", "made", "last use", "expires", "state"), [_row(one) for one in found])


@app.command("rotate")
def rotate_command(
    key_id: KeyArgument,
    config: ConfigOption,
    overlap: Annotated[
        float, typer.Option(metavar="HOURS", min=0, help="Hours for which the old key is still valid.")
    ] = 24.0,
    as_json: JsonOption = False,
) -> None:
    """Make a key that replaces another one, and print it. It has the same tenant, name and scopes, and does not expire."""

    async def rotate(store: Store) -> tuple[str, KeyRecord]:
        old = next((one.key for one in await store.keys.all() if one.key.id == key_id), None)
        if old is None:
            raise _unknown(key_id)
        key, record = make_key(old.name, old.tenant, scopes=old.scopes)
        if not await store.keys.rotate(key_id, record, overlap_s=overlap * 3600):
            raise _unknown(key_id)
        await store.audit.add(operator_name(), "key.rotated", key_id, new=record.id, overlap_hours=overlap)
        return key, record

    _show(*with_store(named_config(config), rotate), as_json)


@app.command("revoke")
def revoke_command(key_id: KeyArgument, config: ConfigOption) -> None:
    """Refuse a key from now on, and end its open requests and its jobs."""

    async def revoke(store: Store) -> None:
        if not await store.keys.revoke(key_id):
            raise _unknown(key_id)
        ended = await store.jobs.end_queued(key_id)
        await store.audit.add(operator_name(), "key.revoked", key_id, queued_jobs=ended)

    with_store(named_config(config), revoke)
    emit(f"{key_id} is revoked.")


def _show(key: str, record: KeyRecord, as_json: bool) -> None:
    if as_json:
        emit_json({"version": 1, "key": key, "id": record.id, "tenant": record.tenant})
        return
    emit(key)
    note(f"The key of {record.name} is shown only this time. Revoke it with: careedit keys revoke {record.id}")


def _scopes(given: str) -> tuple[Scope, ...]:
    names = {name.strip() for name in given.split(",")}
    if not names or not names <= set(SCOPES):
        raise InputError(f"--scopes is {given!r}; give some of {', '.join(SCOPES)}, separated by commas.")
    return tuple(scope for scope in SCOPES if scope in names)


def _document(one: KeyOfTenant) -> dict[str, object]:
    limits = one.tenant.model_dump(mode="json", include={"requests_per_minute", "concurrent_requests"})
    return {**one.key.model_dump(mode="json", exclude={"sha256"}), "tenant_name": one.tenant.name, **limits}


def _row(one: KeyOfTenant) -> tuple[str, ...]:
    key = one.key
    days = [day_of(when) for when in (key.created, key.used, key.expires)]
    expired = key.expires is not None and key.expires <= unix_time()
    state = "revoked" if key.revoked is not None else "expired" if expired else "valid"
    return (key.id, key.name, one.tenant.name, ",".join(key.scopes), *days, state)


def _unknown(key_id: str) -> NotFoundError:
    return NotFoundError(f"No valid key has the id {key_id!r}; `careedit keys list` shows the ids.")
