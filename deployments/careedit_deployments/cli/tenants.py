"""Make and list the tenants of a server, and change their limits and policies.

The commands read and write the database that the configuration names. A running server applies a change at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from careedit.cli.output import JsonOption, emit, emit_json, emit_table, note
from careedit.errors import CareEditError, InputError
from careedit.files import read_yaml
from careedit.records import BASE
from careedit_deployments.cli.ab import ConfigOption, day_of, operator_name, with_store
from careedit_deployments.cli.serve import named_config
from careedit_deployments.config import ServeConfig
from careedit_deployments.http.auth import make_tenant
from careedit_deployments.state.records import ANONYMOUS
from careedit_deployments.state.store import Store
from careedit_deployments.state.tenant_policy import TenantPolicy
from careedit_deployments.state.tenant_records import Retention, TenantRecord

PerMinuteOption = Annotated[
    int | None,
    typer.Option(min=1, help="Maximum requests per minute of all keys. Default: the limit of the configuration."),
]
AtOnceOption = Annotated[
    int | None,
    typer.Option(min=1, help="Maximum edits in flight of all keys. Default: the limit of the configuration."),
]
StoredBytesOption = Annotated[
    int | None,
    typer.Option(min=1, help="Maximum bytes of stored images. Default: the limit of the configuration."),
]
SessionsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Maximum sessions at once. Default: the limit of the configuration."),
]
ClearOption = Annotated[
    bool,
    typer.Option(
        "--clear-names/--pseudonyms", help="How names of end users are stored: in clear, or as keyed hashes (default)."
    ),
]


def _days(what: str) -> Any:
    return typer.Option(metavar="DAYS", help=f"Days {what}. Default: as the configuration says.")


app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def tenants() -> None:
    """Make and list tenants, and change their limits and policies. A tenant owns jobs, sessions and images, and has several API keys."""


@app.command("add")
def add_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the tenant, for operators.")],
    config: ConfigOption,
    per_minute: PerMinuteOption = None,
    at_once: AtOnceOption = None,
    stored_bytes: StoredBytesOption = None,
    sessions: SessionsOption = None,
    clear_names: ClearOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a tenant and print its id."""
    tenant = make_tenant(name, clear_names=clear_names, **_limits(per_minute, at_once, stored_bytes, sessions))

    async def add(store: Store) -> None:
        await store.tenants.add(tenant)
        await store.audit.add(operator_name(), "tenant.added", tenant.id, name=name)

    with_store(named_config(config), add)
    if as_json:
        emit_json({"version": 1, "tenant": tenant})
        return
    emit(tenant.id)
    note(f"Make a key of {name} with: careedit keys add NAME --tenant {tenant.id}")


@app.command("list")
def list_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """List all tenants with their limits."""
    found = with_store(named_config(config), lambda store: store.tenants.all())
    if as_json:
        emit_json({"version": 1, "tenants": found})
        return
    columns = ("id", "name", "per minute", "at once", "stored bytes", "sessions", "made")
    emit_table(columns, [_row(tenant) for tenant in found])


@app.command("limit")
def limit_command(
    tenant_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the tenant, from `careedit tenants list`.")],
    config: ConfigOption,
    per_minute: PerMinuteOption = None,
    at_once: AtOnceOption = None,
    stored_bytes: StoredBytesOption = None,
    sessions: SessionsOption = None,
) -> None:
    """Set all limits of a tenant. A limit that is not given becomes that of the configuration."""
    limits = _limits(per_minute, at_once, stored_bytes, sessions)
    _change(config, tenant_id, "tenant.limited", limits, lambda store: store.tenants.change(tenant_id, **limits))
    emit(f"The limits of {tenant_id} are set.")


@app.command("retention")
def retention_command(
    tenant_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the tenant, from `careedit tenants list`.")],
    config: ConfigOption,
    jobs: Annotated[float | None, _days("after the end of a job")] = None,
    sessions: Annotated[float | None, _days("after the last turn of a session")] = None,
    edits: Annotated[float | None, _days("for which the log keeps an edit, and the feedback on it")] = None,
    assignments: Annotated[float | None, _days("after a user's last edit for which the user's arm is stored")] = None,
) -> None:
    """Set how long the tenant's data are kept, those that are stored as well. A time that is not given becomes that of the
    configuration. `careedit privacy report` shows all times."""
    retention = Retention(jobs=jobs, sessions=sessions, edits=edits, assignments=assignments)
    days = retention.model_dump(mode="json", exclude_none=True)
    _change(config, tenant_id, "tenant.retention", days, lambda store: store.retention.set(tenant_id, retention))
    emit(f"The data of {tenant_id} are kept as {'given' if days else 'the configuration says'}.")


@app.command("names")
def names_command(
    tenant_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the tenant, from `careedit tenants list`.")],
    config: ConfigOption,
    clear_names: ClearOption = False,
) -> None:
    """Set how names of the tenant's end users are stored from now on. Names that are stored already stay as they are."""

    how = {"clear": clear_names}
    _change(
        config, tenant_id, "tenant.names", how, lambda store: store.tenants.change(tenant_id, clear_names=clear_names)
    )
    emit(f"New names of users of {tenant_id} are stored {'in clear' if clear_names else 'as pseudonyms'}.")


@app.command("policy")
def policy_command(
    tenant_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the tenant, from `careedit tenants list`.")],
    config: ConfigOption,
    file: Annotated[
        Path | None,
        typer.Option("--set", metavar="FILE.yaml", help="File with the new policy, which replaces the old one."),
    ] = None,
    other_names: Annotated[
        bool,
        typer.Option(
            "--other-names",
            help="Accept models and experts that this configuration does not have: another server on this database has them.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the policy of a tenant as YAML, or set it: models, experts, limits, region, webhook hosts, purposes.

    A field that the file does not have gets its default. The edited output of this command is a file for --set.
    """
    settings = named_config(config)
    new = None if file is None else read_policy(file)
    warnings = [] if new is None else _check_names(settings, new, other_names)
    if tenant_id == ANONYMOUS:
        raise InputError(
            "Callers without a key have no policy: the configuration decides for them; give a tenant's id."
        )

    async def change(store: Store) -> TenantPolicy:
        if new is None:
            return (await store.tenants.get(tenant_id)).policy or TenantPolicy()
        values = new.model_dump(mode="json")
        await store.tenants.change(tenant_id, policy=values)
        await store.audit.add(operator_name(), "tenant.policy", tenant_id, **values)
        return new

    policy = with_store(settings, change)
    if as_json:
        emit_json({"version": 1, "tenant": tenant_id, "policy": policy})
        return
    emit(yaml.safe_dump(policy.model_dump(mode="json"), sort_keys=False, allow_unicode=True).rstrip())
    if new is not None:
        for warning in warnings:
            note(f"warning: {warning}")
        note(f"The policy of {tenant_id} is set.")


def _change(
    config: str, tenant_id: str, action: str, detail: Mapping[str, Any], change: Callable[[Store], Awaitable[object]]
) -> None:
    """Change a tenant, and write it to the audit log."""

    async def both(store: Store) -> None:
        await change(store)
        await store.audit.add(operator_name(), action, tenant_id, **detail)

    with_store(named_config(config), both)


def read_policy(file: Path) -> TenantPolicy:
    """The policy in a file. Raises `InputError`."""
    values = read_yaml(file, "policy")
    try:
        return TenantPolicy(**values)
    except InputError as error:
        raise InputError(f"The policy {str(file)!r} cannot be used: {error}") from None


def _check_names(config: ServeConfig, policy: TenantPolicy, other_names: bool) -> list[str]:
    """Raise `InputError` for a model or expert that the configuration does not have. Returns what could not be checked, or may be.

    Models are arms and the names of their sets. Experts are looked up in the sets of the arms that the policy allows.
    """
    arms = {name: arm.expert_set for name, arm in config.arms.items() if not arm.shadow}
    if policy.experts is None and set(arms).issuperset(policy.models or ()):
        return []
    from careedit.experts import ExpertSet, load_expert_set  # imports torch

    sets: dict[str, ExpertSet] = {}
    unread = None
    for arm, expert_set in arms.items():
        try:
            sets[arm] = load_expert_set(expert_set)
        except CareEditError as error:
            unread = error
    allowed = [loaded for arm, loaded in sets.items() if policy.allows_arm(arm, loaded.name)]
    models = {*arms, *(loaded.name for loaded in sets.values())}
    experts = {BASE, *(name for loaded in allowed for name in loaded.names)}
    unknown = [
        (f"{kind} {name!r}", ", ".join(sorted(known)))
        for kind, names, known in (("model", policy.models, models), ("expert", policy.experts, experts))
        for name in names or ()
        if name not in known
    ]
    if unread is not None:
        return [f"The {what} was not checked: {unread}" for what, _ in unknown]
    sentences = [f"The configuration has no {what}; it has {known}." for what, known in unknown]
    if sentences and not other_names:
        raise InputError(f"{sentences[0]} Correct the name, or give --other-names if another server has it.")
    return sentences


def _limits(
    per_minute: int | None, at_once: int | None, stored_bytes: int | None, sessions: int | None
) -> dict[str, int | None]:
    """The limits by the names of the fields of `TenantRecord`."""
    return {
        "requests_per_minute": per_minute,
        "concurrent_requests": at_once,
        "stored_bytes": stored_bytes,
        "sessions": sessions,
    }


def _row(tenant: TenantRecord) -> tuple[str, ...]:
    limits = (tenant.requests_per_minute, tenant.concurrent_requests, tenant.stored_bytes, tenant.sessions)
    return (tenant.id, tenant.name, *("-" if limit is None else str(limit) for limit in limits), day_of(tenant.created))
