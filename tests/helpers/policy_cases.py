"""What every database must do for policies of tenants; SQLite runs these cases in tests/unit, PostgreSQL in tests/integration."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from careedit_deployments.errors import BudgetError
from careedit_deployments.state.store import Store
from careedit_deployments.state.tenant_policy import OPERATOR, TenantPolicy
from state_records import Clock, an_edit, collect_cases
from tenant_cases import two_keys

CASES, case = collect_cases()
"""Every case below, for `pytest.mark.parametrize`, and the decorator that adds one."""


@case
async def a_policy_is_stored_with_its_tenant_and_the_operators_own_callers_need_none(
    store: Store, clock: Clock
) -> None:
    tenant, one, _ = await two_keys(store)
    assert await store.tenants.policy("anonymous") == OPERATOR
    assert await store.tenants.policy(tenant.id) == await store.tenants.policy("tenant_x") == TenantPolicy()
    policy = TenantPolicy(models=("a",), experts=(), pixels=2**33, webhook_hosts=(), region="eu", purposes=("judging",))
    await store.tenants.change(tenant.id, policy=policy.model_dump(mode="json"))
    assert await store.tenants.policy(tenant.id) == policy
    assert (await store.keys.find(one.sha256)).tenant.policy == (await store.tenants.get(tenant.id)).policy == policy
    edits = [an_edit(owner=tenant.id, purposes=purposes) for purposes in (None, (), ("shadow",), ("evaluation",))]
    for edit in edits:
        await store.edits.add(edit)
        assert (await store.edits.get(edit.id)).purposes == edit.purposes
    assert await store.edits.purposes_of([edit.id for edit in edits]) == ("shadow", "evaluation")


@case
async def edits_at_once_cannot_cost_more_than_a_day_allows(store: Store, clock: Clock) -> None:
    asked = (store.tenants.spend("a", 30, limit=100) for _ in range(8))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [error for error in answers if isinstance(error, BudgetError)]
    assert (answers.count(clock.now), len(refused)) == (3, 5)
    assert "have taken 90 evaluations and this one needs 30; your tenant may use 100 per day" in str(refused[0])
    begins = datetime.fromtimestamp(clock.now + refused[0].retry_after, UTC)
    assert (begins.hour, begins.minute, f"{begins:%Y-%m-%d %H:%M} UTC." in str(refused[0])) == (0, 0, True)
    with pytest.raises(BudgetError, match="taken 0 evaluations and this one needs 101"):
        await store.tenants.spend("b", 101, limit=100)
    spent_at = clock.now
    await store.tenants.give_back("a", 30, spent_at)
    await store.tenants.spend("a", 40, limit=100)
    clock.now += refused[0].retry_after
    await store.tenants.spend("a", 100, limit=100)
    await store.tenants.give_back("a", 40, spent_at)
    with pytest.raises(BudgetError, match="taken 100"):
        await store.tenants.spend("a", 1, limit=100)
