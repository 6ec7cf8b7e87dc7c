"""One application on the untrained set: experts of their own, a shared pool, an encoder and a scripted judge."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from careedit.errors import InputError
from careedit.records import EditRequest
from careedit_deployments.cluster.ray_backend import RayBackend
from careedit_deployments.edits.backend import EditCall, ImageDone
from careedit_deployments.errors import DeadlineError
from crowd import is_edit
from tally import TALLY

SMALL = {"num_cpus": 0.1, "threads": 1, "graceful_shutdown_s": 20, "health_check_period_s": 1}
EXPERT = {**SMALL, "resources": {"worker": 0.01}, "max_ongoing_requests": 16, "max_queued_requests": 32}
SCALED = {
    "min_replicas": 1,
    "max_replicas": 2,
    "target_step_seconds": 1.0,
    "upscale_delay_s": 0.2,
    "downscale_delay_s": 1,
}


@pytest.fixture(scope="session")
def served_config(untrained_set: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    state = tmp_path_factory.mktemp("state")
    checks = []
    for verdict in ("refuse", "mark"):  # of words that no other test uses
        (state / f"{verdict}.txt").write_text(f"a word to {verdict}\n", "utf-8")
        options = {"file": str(state / f"{verdict}.txt"), "verdict": verdict}
        use = "careedit_deployments.policy.words:words_list"
        checks.append({"name": f"words-{verdict}", "use": use, "options": options, "stages": ["input"]})
    return {
        "name": "edits",
        "arms": {
            "main": {
                "expert_set": str(untrained_set),
                "device": "cpu",
                "long_tail": ["compose", "identity", "reference"],
                "experts": {"style": {**EXPERT, "scaling": SCALED}},
            }
        },
        "ingress": {**SMALL, "max_ongoing_requests": 256, "max_queued_requests": 256},
        "router": {**SMALL, "max_ongoing_requests": 64},
        "expert": EXPERT,
        "shared": {**EXPERT, "max_queued_requests": 96},
        "encoder": {**SMALL, "max_ongoing_requests": 64},
        "scorer": {"backend": "import", "model": "judging:ByPlace", "deployment": SMALL},
        "batch": 4,
        "hang_s": 6,
        "limits": {"deadline_s": 240, "body_grace_s": 8},
        "http": {"cors": ["https://app.example.org"]},
        "jobs": {"lease_s": 8, "attempts": 5},  # a starved machine may stall for seconds
        "policy": {"checks": checks},
        "state": {"database": f"sqlite+aiosqlite:///{state}/careedit.db", "blobs": str(state / "blobs")},
    }


@pytest.fixture(scope="session")
def served(serve_cluster, served_config) -> RayBackend:
    """A backend on the running application."""
    return serve_cluster.backend(serve_cluster.run(served_config), served_config)


@pytest.fixture
def call(served, draw_picture):
    """`call(seed, expert, ...)`: a routed edit; `expert` is a name or a mixture."""
    from careedit.routing import FixedRouter

    def make(seed: int = 0, expert: Any = "erase", seconds: float = 120, partials: int = 0, **fields: Any) -> EditCall:
        request = EditRequest(
            image=draw_picture((96, 64), seed=seed),
            seed=seed,
            expert=expert,
            **{"instruction": "remove the red circle", "steps": 4, **fields},
        )
        from careedit.routing import features_of

        decision = FixedRouter(expert, tuple(served.arms["main"].experts.values())).route(features_of(request), top_k=1)
        return EditCall(
            id=f"edit-{seed}",
            arm="main",
            request=request,
            decision=decision,
            deadline_s=seconds,
            partials=partials,
            progress=True,
        )

    return make


@pytest.fixture
def edit(served):
    """`edit(*calls)`: the events of each call, all made at once; an error in place of them where one was raised."""

    async def one(call: EditCall) -> Any:
        TALLY.requests += 1
        try:
            async with aclosing(served.edit(call)) as stream:
                events = [event async for event in stream]
        except (InputError, DeadlineError) as error:  # of a request that asks for it
            TALLY.refused += 1
            return error
        except Exception as error:  # noqa: BLE001 - told to the test
            return error
        TALLY.served += any(isinstance(event, ImageDone) for event in events)
        return events

    async def gather(calls: Any) -> Any:
        return await asyncio.gather(*(one(call) for call in calls))

    return lambda *calls: asyncio.run(gather(calls))


@pytest.fixture
def alone(open_editor):
    """`alone(event, call)`: whether a picture is the same image edited in this process."""
    return lambda event, call: is_edit(event.picture, open_editor("merged").edit(call.request).images[event.image])


@pytest.fixture
def ask(served, serve_cluster, until):
    """`ask("expert-main-erase")`: the status of one of its replicas, once there is one; it does not wait behind edits."""
    from replica_process import status

    return lambda name: until(lambda: serve_cluster.inside("edits", name, status))[0]


@pytest.fixture
def until():
    """`until(condition, seconds)`: wait for something that happens in other processes; fails where it does not."""

    def wait(condition: Any, seconds: float = 60.0) -> Any:
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, f"nothing within {seconds:g} seconds"
            time.sleep(0.1)
        return found

    return wait
