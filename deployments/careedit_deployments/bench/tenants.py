"""Many tenants at once: each sends edits at random times, and each should wait equally long."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from careedit.stats import percentile
from careedit_deployments.bench.load import Edit, replay
from careedit_deployments.bench.workload import Workload
from careedit_deployments.cli.ab import with_store
from careedit_deployments.config import ServeConfig
from careedit_deployments.http.auth import make_key, make_tenant
from careedit_deployments.state.store import Store

LOAD = 0.8
"""Offered load, as a share of the measured capacity."""
SEED = 22
"""Seed of the arrival times."""


@dataclass(frozen=True)
class TenantWaits:
    """The edits of one tenant."""

    edits: int
    """Number of edits that the tenant sent."""
    answered: int
    """Number of edits that succeeded."""
    mean: float | None
    """Mean seconds of answered edits, from arrival to image; None if none was answered."""
    p50: float | None
    """Median of these seconds; percentiles use the nearest rank."""
    p95: float | None
    """95th percentile of these seconds."""
    p99: float | None
    """99th percentile of these seconds."""

    @property
    def service(self) -> float:
        """Share of the tenant's edits that were answered, divided by their mean seconds; 0 if none was answered."""
        return 0.0 if self.mean is None else self.answered / self.edits / self.mean


@dataclass(frozen=True)
class TenantsLoad:
    """What some number of tenants at once experienced."""

    edits_per_second: float
    """Offered load: edits per second of all tenants together."""
    fairness: float
    """Jain's index of the tenants' `TenantWaits.service`; see `jain`."""
    tenants: tuple[TenantWaits, ...]
    """The tenants, in their order."""


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index (sum x)^2 / (n * sum x^2): 1 if all values are equal, 1/n if all but one are 0.

    Jain, Chiu and Hawe, DEC-TR-301, 1984. Values are at least 0; the index of zeros alone is 0.
    """
    squares = len(values) * sum(value**2 for value in values)
    return sum(values) ** 2 / squares if squares else 0.0


def arrivals(tenants: int, each: int, edits_per_second: float) -> list[tuple[float, int]]:
    """Times in seconds at which tenants send an edit, with the tenant's number, in order of time.

    Every tenant sends `each` edits at independent, uniformly distributed times: a Poisson process, given its number of
    events. So no tenant has less demand than another, and all of them together send `edits_per_second` on average.
    """
    draw = random.Random(SEED)
    seconds = tenants * each / edits_per_second
    return sorted((draw.uniform(0.0, seconds), tenant) for tenant in range(tenants) for _ in range(each))


def tenant_loads(
    tenants: Sequence[Edit], load: Workload, capacity: float, done: Callable[[], None]
) -> dict[int, TenantsLoad]:
    """The plan's numbers of tenants, one number after the other, at `LOAD` times the `capacity` in edits per second.

    The fairness index is over the tenants' service: the share of a tenant's edits that were answered, divided by their mean
    seconds from arrival to image. All tenants send as many edits of the same kinds, so equal service is fair. An index over
    answered edits alone would be 1 as soon as nothing is refused.
    """
    found = {}
    for count, each in load.plan.tenant_edits.items():
        rate = LOAD * capacity
        due = arrivals(count, each, rate)
        requests = load.mixed(0, len(due))
        sent = [(tenants[tenant], request) for (_, tenant), request in zip(due, requests, strict=True)]
        seconds = replay(lambda one: one[0](one[1]), sent, [at for at, _ in due])
        waits = tuple(
            _waits([taken for taken, (_, tenant) in zip(seconds, due, strict=True) if tenant == number])
            for number in range(count)
        )
        found[count] = TenantsLoad(rate, jain([one.service for one in waits]), waits)
        done()
    return found


def tenant_keys(config: ServeConfig, count: int) -> list[str]:
    """API keys of `count` new tenants of the server with this configuration."""
    tenants = [make_tenant(f"bench {number}") for number in range(count)]
    made = [make_key("bench", tenant.id) for tenant in tenants]

    async def add(store: Store) -> None:
        for tenant, (_, record) in zip(tenants, made, strict=True):
            await store.tenants.add(tenant)
            await store.keys.add(record)

    with_store(config, add)
    return [key for key, _ in made]


def _waits(seconds: Sequence[float | None]) -> TenantWaits:
    answered = [taken for taken in seconds if taken is not None]
    if not answered:
        return TenantWaits(len(seconds), 0, None, None, None, None)
    p50, p95, p99 = (percentile(answered, percent) for percent in (50, 95, 99))
    return TenantWaits(len(seconds), len(answered), statistics.fmean(answered), p50, p95, p99)
