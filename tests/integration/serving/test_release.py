"""docs/release.md is run, small: an expert is trained, added, evaluated, voted on, shadowed, served, promoted, rolled back."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import ImageDraw

from careedit.cli.main import main
from careedit.experts import load_expert_set
from careedit.files import png_bytes
from careedit.records import EditRequest
from careedit_eval.metrics import ScoreItem, load_metric
from careedit_eval.pictures import PictureRef
from careedit_eval.records import EditRow, Sample
from careedit_eval.runs import load_run
from careedit_tiny.world.draw import draw_scene
from careedit_tiny.world.scene import random_scene
from crowd import Answer, Crowd
from voters import collecting

pytestmark = [
    pytest.mark.timeout(900),  # it trains, evaluates, and deploys two sets
    # Of MLflow 3.17 and what it stands on, none of it under our hands.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PAGE = (Path(__file__).parents[3] / "docs/release.md").read_text(encoding="utf-8")
SMALLER = {
    "--steps 300 --batch 4": "--steps 2 --batch 1",
    "rows: 240": "rows: 6",
    "oracle_compliant: 0.03, preservation: 0.01}": "oracle_compliant: 0.9, preservation: 0.5}\n  min_images: 2",
}
USERS = 30
SMALL = {
    "num_cpus": 0.1,
    "threads": 1,
    "graceful_shutdown_s": 20,
    "max_ongoing_requests": 64,
    "max_queued_requests": 64,
}


class Release:
    """Runs the blocks of the page in a folder, in its order."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        text = PAGE
        for large, small in SMALLER.items():
            assert large in text, f"the page no longer says {large!r}"
            text = text.replace(large, small)
        self.folder, self._capsys, self.run = folder, capsys, ""
        for block in re.findall(r"^```yaml\n# (\S+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
            (folder / block[0]).write_text(block[1], "utf-8")
        blocks = re.findall(r"^```bash\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
        self._left = [line for block in blocks for line in block.splitlines()]

    def next(self, start: str, code: int = 0, *more: str) -> str:
        """Run the page's next command, which starts with these words; returns what it printed."""
        line = self._left.pop(0)
        assert line.startswith(f"careedit {start}"), line
        words = [self.run if word == "RUN" else word for word in shlex.split(line)[1:]]
        self._capsys.readouterr()
        assert main([*words, *more]) == code, self._capsys.readouterr().err
        return self._capsys.readouterr().out

    def skip(self, start: str) -> None:
        """The page's next command is a server, which the test runs in another way."""
        assert self._left.pop(0).startswith(f"careedit {start}")

    def served(self, name: str) -> dict[str, Any]:
        """A configuration of the page, with its state in the folder, whatever the folder of a replica."""
        config: dict[str, Any] = yaml.safe_load((self.folder / name).read_text("utf-8"))
        config["arms"]["candidate"]["expert_set"] = str(self.folder / "set-b")
        state = {"database": f"sqlite+aiosqlite:///{self.folder}/careedit.db", "blobs": str(self.folder / "blobs")}
        config |= {"name": "release", "state": state, **{part: {**SMALL} for part in ("ingress", "router", "shared")}}
        config["scorer"]["deployment"] = {**SMALL}
        (self.folder / name).write_text(yaml.safe_dump(config), "utf-8")
        return config

    def ended(self) -> bool:
        return not self._left


def rows(folder: Path, count: int) -> None:
    folder.mkdir()
    lines = []
    for number in range(count):
        target = draw_scene(random_scene(random.Random(number)), 64)
        source = target.copy()
        ImageDraw.Draw(source).ellipse((22, 22, 42, 42), fill=(200, 30, 30))
        source.save(folder / f"{number}-source.png")
        target.save(folder / f"{number}-target.png")
        row = {
            "source": f"{number}-source.png",
            "instruction": "remove the red circle",
            "target": f"{number}-target.png",
        }
        lines.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(lines), "utf-8")


async def use(url: str, requests: list[EditRequest]) -> list[Any]:
    """Every request is made by a user of its own."""
    async with Crowd(url) as crowd:
        return await asyncio.gather(*(crowd.edit(one, user=f"user {i}") for i, one in enumerate(requests)))


def judged(answer: Answer) -> float:
    """The number of `careedit eval` for a served edit."""
    source, made = (png_bytes(picture) for picture in (answer.request.image, answer.picture))
    sample = Sample(id="1", kind="x", instruction=answer.request.instruction, group="1", source=PictureRef.of(source))
    row = EditRow(
        edit_key="1", sample_id="1", kind="x", group="1", arm="b", seed=0, picture="-", picture_sha256="0" * 64
    )
    (found,) = load_metric("vqa", judge="tiny").score([ScoreItem(sample, row, made)])
    return found.values["vqa_overall"]


def test_a_new_expert_is_trained_judged_shadowed_served_promoted_and_rolled_back(
    serve_cluster, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, until
) -> None:
    from ray import serve

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    page = Release(tmp_path, capsys)
    # 1. Train and add.
    rows(tmp_path / "rows", 4)
    page.next("train expert")
    page.next("experts copy")
    page.next("experts add")
    page.next("experts verify")
    a, b = load_expert_set("tiny").sha256, load_expert_set(str(tmp_path / "set-b")).sha256
    assert a != b
    # 2. Evaluate offline.
    document = json.loads(page.next("eval nightly", 0, "--json"))
    page.run = document["run"]
    assert Path(page.run).name in page.next("eval list")
    run = load_run(Path(page.run))
    hashes = {one.name: one.facts.get("sha256") for one in run.record.sets}
    assert (hashes["in-use"], hashes["candidate"]) == (a, b)
    # 3. Vote.
    page.skip("eval vote ")
    with collecting(Path(page.run), f"sqlite:///{tmp_path}/eval-runs/votes.db", "in-use", "candidate") as votes:
        while (pair := votes.pair()["pair"]) is not None:  # the page has only pairs that differ
            votes.post("/api/vote", pair=pair, rater="ann", verdict=votes.judge(pair))
    assert "ann" in page.next("eval votes")
    # 4. Shadow.
    requests = [
        EditRequest(
            image=draw_scene(random_scene(random.Random(i)), 64), instruction="remove the circle", seed=i, steps=2
        )
        for i in range(USERS)
    ]
    shadow, tenth = page.served("shadow.yaml"), page.served("tenth.yaml")
    url = f"{serve_cluster.url}/release"
    page.skip("serve shadow.yaml")
    try:
        serve_cluster.run(shadow, route_prefix="/release")
        answers = asyncio.run(use(url, requests[:4]))
        assert {answer.headers["x-careedit-arm"] for answer in answers} == {"in-use"}

        def status() -> dict[str, Any]:
            capsys.readouterr()
            assert main(["ab", "status", "--config", "shadow.yaml", "--json"]) == 0
            return {one["arm"]: one for one in json.loads(capsys.readouterr().out)["arms"]}

        until(lambda: status()["candidate"]["edits"] == 4 and status()["candidate"]["judge"], 120)
        assert "candidate" in page.next("ab status")
        # 5. A tenth of the traffic.
        page.skip("serve tenth.yaml")
        serve_cluster.run(tenth, route_prefix="/release")
        answers = asyncio.run(use(url, requests))
        arms = {answer.headers["x-careedit-arm"] for answer in answers}
        assert arms == {"in-use", "candidate"}

        def scored() -> list[tuple[Answer, dict[str, float]]]:
            assert main(["ab", "export", "--config", "tenth.yaml", "--to", "now.jsonl"]) == 0
            lines = [json.loads(line) for line in Path("now.jsonl").read_text("utf-8").splitlines()]
            scores = {one["id"]: one["scores"] for one in lines if one["kind"] == "edit" and one["scores"]}
            ours = [answer for answer in answers if answer.headers["x-careedit-arm"] == "candidate"]
            return [(one, scores[name]) for one in ours if (name := one.headers["x-careedit-edit"]) in scores]

        edited, scores = until(scored, 120)[0]
    finally:
        serve.delete("release")
    page.next("ab export")
    assert scores["overall"] == pytest.approx(judged(edited), abs=1e-4), "one number in traffic and offline"
    report = json.loads(page.next("ab report", 0, "--json"))
    assert {one["arm"]: one["expert_set_sha256"] for one in report["arms"]} == {"in-use": a, "candidate": b}
    assert {(one["live"], one["set_a"], one["set_b"]) for one in report["offline"]} >= {
        ("judge", "in-use", "candidate")
    }
    page.next("eval votes")
    # 6. Decide and promote, 7. roll back.
    page.next("eval promote")
    assert Path(page.next("eval champion").strip()) == tmp_path / "set-b"
    page.next("eval rollback")
    assert page.ended()
    assert main(["eval", "champion", "tiny"]) == 0
    assert load_expert_set(capsys.readouterr().out.strip()).sha256 == a
