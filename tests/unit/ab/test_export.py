"""`careedit ab export`: what the arms did, without whom they did it for."""

import asyncio
import json
import time

import yaml

from careedit.cli.main import main
from careedit_deployments.edits.assignment import assign
from careedit_deployments.state.records import AssignmentRecord, FeedbackRecord, new_id
from careedit_deployments.state.tenant_policy import TenantPolicy
from careedit_deployments.state.tenant_records import TenantRecord


def test_an_export_has_what_an_analysis_needs_and_names_nobody(make_config, with_store, add_edits, tmp_path) -> None:
    config = make_config()
    users = {
        arm: [name for name in map(str, range(40)) if assign(config.arms, config.ab_salt, name) == arm] for arm in "ab"
    }

    async def fill(store) -> None:
        (first,) = await add_edits(store, "a", "m", 0.9, user=users["a"][0], instruction="a secret wish")
        (other,) = await add_edits(store, "b", "f", user=users["b"][0])
        await add_edits(store, "b", "m", user=users["a"][0])  # asked for by name
        await add_edits(store, "mirror", "m", shadow_of=first)
        await store.arms.assign(AssignmentRecord(user_sha256="0" * 64, salt=config.ab_salt, arm="a", created=1.0))
        said = {"created": time.time(), "comment": "my address is ..."}
        await store.feedback.add(FeedbackRecord(id=new_id("feedback"), edits=(first, other), winner=first, **said))
        await store.feedback.add(FeedbackRecord(id=new_id("feedback"), edits=("edit_gone",), rating=5, **said))

    with_store(fill)
    path, to = tmp_path / "ab.yaml", tmp_path / "ab.jsonl"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")), "utf-8")
    assert main(["ab", "export", "--config", str(path), "--to", str(to)]) == 0
    header, *lines = [json.loads(line) for line in to.read_text().splitlines()]
    assert (header["version"], header["assigned"], list(header["arms"])) == (2, {"a": 1}, ["a", "b"])
    edits = [line for line in lines if line["kind"] == "edit"]
    assert [(one["arm"], one["dealt"], one["outcome"]) for one in edits] == [
        ("a", True, "made"), ("b", True, "failed"), ("b", False, "made"),
    ]  # fmt: skip
    assert edits[0]["unit"] == edits[2]["unit"] != edits[1]["unit"] and edits[0]["scores"] == {"overall": 0.9}
    (said,) = [line for line in lines if line["kind"] == "feedback"]
    assert said["winner"] == edits[0]["id"] and len(said["edits"]) == 2
    assert not any(word in to.read_text() for word in ("secret", "address", f'"{users["a"][0]}"'))


def test_edits_of_tenants_are_exported_if_they_may_be_and_could_be_when_they_were_made(
    make_config, with_store, add_edits, tmp_path, capsys
) -> None:
    async def fill(store) -> dict[str, list[str]]:
        for name, purposes in (("yes", ["evaluation"]), ("no", ["shadow", "judging"]), ("withdrawn", [])):
            policy = TenantPolicy(purposes=purposes, models=["a"])
            await store.tenants.add(TenantRecord(id=name, name=name, policy=policy, created=1.0))
        await store.tenants.add(TenantRecord(id="none", name="none", created=1.0))
        made = {}
        for owner in ("yes", "no", "withdrawn", "none", "anonymous"):
            made[owner] = [
                *await add_edits(store, "a", "m", owner=owner),
                *await add_edits(store, "a", "m", owner=owner, purposes=("judging",)),
                *await add_edits(store, "a", "m", owner=owner, purposes=("evaluation",)),
            ]
            said = {"owner": owner, "edits": (made[owner][0],), "rating": 5, "created": time.time()}
            await store.feedback.add(FeedbackRecord(id=new_id("feedback"), **said))
        return made

    config = make_config()
    made = with_store(fill)
    path, to = tmp_path / "ab.yaml", tmp_path / "ab.jsonl"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")), "utf-8")
    assert main(["ab", "export", "--config", str(path), "--to", str(to)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "12 edits are left out: their tenants do not allow the purpose evaluation." in said
    lines = [json.loads(line) for line in to.read_text().splitlines()]
    exported = {line["id"]: line["dealt"] for line in lines if line["kind"] == "edit"}
    assert not exported[made["yes"][2]], "a tenant that may use one arm only is not assigned to it at random"
    assert set(exported) == {made["yes"][2], made["anonymous"][0], made["anonymous"][2]}
    assert [line["edits"] for line in lines if line["kind"] == "feedback"] == [[made["anonymous"][0]]]


def test_the_evaluation_reads_what_is_exported(make_config, with_store, add_edits, tmp_path, capsys) -> None:
    config = make_config()

    async def fill(store) -> None:
        for i in range(180):
            arm = assign(config.arms, config.ab_salt, f"user {i}")
            (own,) = await add_edits(store, arm, "m", 0.8 if arm == "b" else 0.4 + (i % 7) / 70, user=f"user {i}")
            if i < 40:  # compares it with an edit of the other arm, which the user asks for by name; b wins 3 of 4
                (other,) = await add_edits(store, "b" if arm == "a" else "a", "m", user=f"user {i}")
                winner = own if (arm == "b") == (i % 4 > 0) else other
                said = FeedbackRecord(id=new_id("feedback"), edits=(own, other), winner=winner, created=time.time())
                await store.feedback.add(said)
            await asyncio.sleep(0)

    with_store(fill)
    path, to = tmp_path / "ab.yaml", tmp_path / "ab.jsonl"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")), "utf-8")
    assert main(["ab", "export", "--config", str(path), "--to", str(to)]) == 0
    capsys.readouterr()
    assert main(["ab", "report", str(to), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    verdicts = {one["output"]: one["verdict"] for one in document["differences"]}
    assert verdicts["judge"] == "better" and verdicts["failed"] == "no difference seen"
    assert sum(one["units"] for one in document["arms"]) == 180 and document["split_p"] > 0.001

    # The same comparisons as votes, in a table of the server's own database.
    assert main(["eval", "votes", config.state.database, "--add", str(to), "--json"]) == 0
    votes = json.loads(capsys.readouterr().out)
    (pair,) = votes["pairs"]
    (preferred,) = [one for one in document["differences"] if one["output"] == "preferred"]
    won = {"a": pair["losses"], "b": pair["wins"]} if pair["b"] == "b" else {"a": pair["wins"], "b": pair["losses"]}
    assert won == {"a": 10, "b": 30} and len(votes["raters"]) == 40 and preferred["mean_b"] == 30 / 40
