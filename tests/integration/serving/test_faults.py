"""What may go wrong while edits are made: replicas and judges die, load grows, bad adapters come."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import aclosing

import pytest
from ray import serve

from careedit.experts import add_expert, load_expert_set, make_manifest, remove_expert
from careedit.records import EarlyFilter
from careedit_deployments.edits.backend import ImageDone
from judging import DEADLY
from tally import TALLY

ERASE = "expert-main-erase"


def made(events):
    assert isinstance(events, list), events
    return [event for event in events if isinstance(event, ImageDone)]


def running(name):
    """Replicas of a deployment that run."""
    return serve.status().applications["edits"].deployments[name].replica_states.get("RUNNING", 0)


def test_without_a_judge_edits_go_on_and_say_so(call, edit, until):
    filtered = EarlyFilter(strategy="continue", candidates=2, preview_steps=1)
    (events,) = edit(call(seed=5, instruction=DEADLY, early_filter=filtered))
    (event,) = made(events)
    assert event.trace.seed == 5
    assert event.trace.degradations[0].startswith("degraded: filter, the judge failed (The scorer pool does not answer")
    until(lambda: running("scorer") == 1)


def test_only_the_loaded_expert_scales_out_and_in_again(served, call, until):
    async def load():
        async def one(seed):
            TALLY.requests += 1
            async with aclosing(served.edit(call(seed=seed, expert="style", steps=200, n=4, seconds=280))) as stream:
                async for _ in stream:
                    pass

        edits = [asyncio.ensure_future(one(seed)) for seed in range(8)]
        await asyncio.to_thread(until, lambda: running("expert-main-style") == 2, 120)
        assert running("shared-main") == 1
        for task in edits:
            task.cancel()
        ends = await asyncio.gather(*edits, return_exceptions=True)
        TALLY.left += sum(isinstance(end, asyncio.CancelledError) for end in ends)

    asyncio.run(load())
    until(lambda: running("expert-main-style") == 1, 60)


@pytest.fixture
def changed(serve_cluster, served, served_config):
    """`changed(folder)`: the application on another set, in place; the old one again when the test ends."""

    def change(folder):
        before = served_config["arms"]["main"]
        known = load_expert_set(folder).names
        arm = {**before, "expert_set": str(folder), "long_tail": [one for one in before["long_tail"] if one in known]}
        config = {**served_config, "arms": {"main": arm}}
        serve_cluster.run(config)
        return serve_cluster.backend("edits", config)

    yield change
    serve_cluster.run(served_config)


def test_a_bad_adapter_is_refused_and_the_old_one_stays(changed, untrained_set, tmp_path, call, edit, alone, ask):
    before = ask(ERASE)
    folder = shutil.copytree(untrained_set, tmp_path / "set")
    (adapter,) = (folder / "experts/erase").glob("*.safetensors")
    adapter.write_bytes(adapter.read_bytes()[:-64])
    changed(folder)
    after = ask(ERASE)
    assert after["pid"] == before["pid"] and "erase" in after["refused"]
    wanted = call(seed=1)
    assert alone(made(edit(wanted)[0])[0], wanted)


def test_a_replaced_expert_takes_new_edits_while_the_old_ones_finish(
    changed, served, untrained_set, tmp_path, call, ask
):
    folder = shutil.copytree(untrained_set, tmp_path / "set")
    (style,) = (folder / "experts/style").glob("*.safetensors")
    known = load_expert_set(folder)
    old = known.manifest("erase")
    fields = {"name": "erase", "competence": old.competence, "description": old.description, "handles": old.handles}
    manifest = make_manifest(
        style, known.shapes, **fields, base_name=old.base.name, licence=old.licence, provenance=old.provenance
    )
    source = shutil.copy(style, tmp_path / manifest.file)
    add_expert(folder, manifest, source, replace=True)
    new = remove_expert(folder, "identity")
    pid = ask(ERASE)["pid"]

    async def through_the_change():
        begun = asyncio.Event()

        async def old_edit():
            async with aclosing(served.edit(call(seed=1, steps=200, n=4, seconds=280))) as stream:
                events = []
                async for event in stream:
                    begun.set()
                    events.append(event)
                return events

        task = asyncio.ensure_future(old_edit())
        await begun.wait()
        backend = await asyncio.to_thread(changed, folder)
        async with aclosing(backend.edit(call(seed=2))) as stream:
            after = [event async for event in stream]
        return await task, after

    TALLY.requests += 2
    before, after = asyncio.run(through_the_change())
    TALLY.served += len([events for events in (before, after) if made(events)])
    assert {event.trace.expert_set_sha256 for event in made(before)} == {known.sha256}
    assert made(after)[0].trace.expert_set_sha256 == new.sha256 != known.sha256
    assert ask(ERASE)["pid"] == pid
