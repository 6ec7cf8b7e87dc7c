"""`careedit serve --make-key`: an API key for one run of a server on one's own machine, as Jupyter's token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from careedit_deployments.cli.ab import operator_name, with_store
from careedit_deployments.config import ServeConfig
from careedit_deployments.errors import NotFoundError
from careedit_deployments.http.auth import make_key, make_tenant
from careedit_deployments.state.records import ANONYMOUS
from careedit_deployments.state.store import Store

NAME = "careedit serve"
"""Name of the key."""


@contextmanager
def session_key(config: ServeConfig) -> Iterator[str]:
    """A key with all scopes, which is revoked at the end. The keys of earlier runs, which may have crashed, are revoked now.

    It belongs to the tenant that owns everything made without keys, so a run with a key sees the jobs of a run without one.
    """
    key, record = make_key(NAME, ANONYMOUS)

    async def begin(store: Store) -> None:
        try:
            await store.tenants.get(ANONYMOUS)
        except NotFoundError:
            await store.tenants.add(make_tenant(ANONYMOUS).model_copy(update={"id": ANONYMOUS}))
        for one in await store.keys.all():
            if one.key.name == NAME and one.key.tenant == ANONYMOUS and one.key.revoked is None:
                await store.keys.revoke(one.key.id)
        await store.keys.add(record)
        await store.audit.add(operator_name(), "key.added", record.id, name=NAME, tenant=ANONYMOUS)

    async def end(store: Store) -> None:
        await store.keys.revoke(record.id)
        await store.audit.add(operator_name(), "key.revoked", record.id)

    with_store(config, begin)
    try:
        yield key
    finally:
        with_store(config, end)
