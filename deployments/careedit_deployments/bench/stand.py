"""The platform as it is measured: a configuration on a cluster of this machine, with an arm beside it that works serially."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from careedit.errors import InputError
from careedit_deployments.cli.serve import at_address, check_sets, start, stop
from careedit_deployments.config import Arm, AuthConfig, ServeConfig

SERIAL_ARM = "bench-serial"
"""The arm without a step scheduler; its weight is 0, a request names it as its model."""


def arm_of(config: ServeConfig) -> tuple[str, Arm]:
    """The arm that is measured: the only one that takes traffic. Raises `InputError` where there are several."""
    live = [(name, arm) for name, arm in config.arms.items() if not arm.shadow and arm.weight > 0]
    if len(live) != 1 or len(config.arms) != 1:
        raise InputError(f"The configuration has {len(config.arms)} arms; measure one that has a single arm.")
    return live[0]


def with_serial_arm(config: ServeConfig, experts: tuple[str, ...], folder: Path) -> ServeConfig:
    """`config` with a second arm whose replica of the first of `experts`, the set's, takes one edit at a time.

    State is put into `folder`, and what would turn the benchmark's clients away (keys, rates, other addresses) is off.
    """
    _, arm = arm_of(config)
    one, *others = experts
    deployment = arm.experts.get(one, config.expert)
    alone = deployment.model_copy(update={"max_ongoing_requests": 1, "max_queued_requests": 256})
    serial = arm.model_copy(
        update={"weight": 0.0, "experts": {one: alone}, "long_tail": () if config.shared is None else tuple(others)}
    )
    # The scheduler's side is the same expert with a deployment of its own.
    tail = tuple(name for name in arm.long_tail if name != one)
    state = config.state.model_copy(
        update={"database": f"sqlite+aiosqlite:///{folder / 'careedit.db'}", "blobs": str(folder / "blobs")}
    )
    changed = config.model_copy(
        update={
            "arms": {arm_of(config)[0]: arm.model_copy(update={"long_tail": tail}), SERIAL_ARM: serial},
            "auth": AuthConfig(required=False),
            "limits": config.limits.model_copy(update={"requests_per_minute": None, "concurrent_requests": None}),
            "state": state,
        }
    )
    return at_address(changed, "127.0.0.1", 0)


@contextmanager
def platform(config: ServeConfig) -> Iterator[str]:
    """Its address, while it runs. Raises `ExpertError` for a set that is unfit or a part that does not come up."""
    check_sets(config)
    url = start(config, None)
    try:
        yield url
    finally:
        stop(config)
