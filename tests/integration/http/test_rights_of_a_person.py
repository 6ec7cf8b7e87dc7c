"""A person's data, made over HTTP by real edits, are exported and erased; then no store has a trace, and another's are whole."""

import base64
import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile

import httpx2
import pytest
import yaml
from typer.testing import CliRunner

from careedit.files import png_bytes
from careedit.images import decode_image, image_sha256
from careedit_deployments.cli import privacy
from careedit_deployments.config import ServeConfig
from careedit_eval.suite import Arm
from careedit_eval.tracking import log_run
from local_backend import LocalBackend
from scripted_eval import finished, suite
from served import a_key, serve

pytestmark = [  # of MLflow and what it needs
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ARM = {"expert_set": "tiny", "device": "cpu"}


class Person:
    """An end user who does everything that can be done for a user."""

    def __init__(self, client: httpx2.Client, name: str, words: str, picture: bytes) -> None:
        self.name, self.words, self.picture, self._client = name, words, picture, client
        files, body = {"image": ("a.png", picture)}, {"prompt": words, "user": name, "steps": "2"}
        edits = [self._post("/v1/images/edits", files=files, data=body) for _ in range(2)]
        self.edits = [edit["careedit"]["id"] for edit in edits]
        self.address = self._post("/v1/images/edits", files=files, data={**body, "response_format": "url"})["data"][0][
            "url"
        ]
        self._post("/v1/feedback", json={"edit": self.edits[0], "rating": 2, "comment": words})
        self._post("/v1/feedback", json={"edits": self.edits, "winner": self.edits[1]})
        self.session = self._post("/v1/sessions", files=files, data={"user": name})["id"]
        turns = [self._post(f"/v1/sessions/{self.session}/turns", json={"prompt": words, "steps": 2}) for _ in range(2)]
        self.edits += [turn["careedit"]["id"] for turn in turns]
        self.job = self._post("/v1/jobs", files=files, data={**body, "partial_images": "1"})["id"]
        while (job := client.get(f"/v1/jobs/{self.job}").json())["status"] != "completed":
            assert job["status"] in ("queued", "running"), job
        self.results = [base64.b64decode(one["data"][0]["b64_json"]) for one in (*edits, *turns, job["result"])]
        self.results.append(httpx2.get(self.address).content)

    def _post(self, path: str, **content) -> dict:
        return self._client.post(path, **content).raise_for_status().json()

    def traces(self, pseudonym: str, images: Iterable[bytes]) -> list[bytes]:
        """What must not be found anywhere: names, ids, words, and hashes and parts of every image file that is stored."""
        texts = [self.name, pseudonym, self.words, self.session, self.job, *self.edits, self.address.split("/")[-2]]
        images = [self.picture, *self.results, *images]
        hashes = [hashlib.sha256(image).hexdigest() for image in images]
        middles = [image[len(image) // 2 :][:64] for image in images]
        return [*(text.encode() for text in (*texts, *hashes)), *middles]


def evaluated(folder: Path, url: str, key: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An evaluation of the server, as a run in MLflow; returns an instruction that it has logged."""
    monkeypatch.setenv("SERVER_KEY", key)
    arm = Arm(name="there", kind="http", url=f"{url}/v1", model="main", steps=2, api_key_env="SERVER_KEY")
    run = finished(suite(arm, n=2), folder)
    log_run(run, f"sqlite:///{folder}/mlflow.db", None)
    edits = [*run.table.edits_of("drawn", "there").values()]
    assert [edit.error for edit in edits] == [None, None]
    return edits[0].instruction


def test_no_store_has_a_trace_of_an_erased_person_and_anothers_data_are_whole(
    tmp_path: Path, draw_picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, access = a_key("studio")
    folder = tmp_path / "server"
    settings = {
        "arms": {"main": ARM, "copies": {**ARM, "shadow": True, "weight": 1}},
        "batch": 1,
        "state": {"database": f"sqlite+aiosqlite:///{folder}/state.db", "blobs": str(folder / "blobs")},
        "telemetry": {"log_prompts": True},
    }
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(settings))

    def call(*args: str) -> dict:
        config = ("--config", str(tmp_path / "serve.yaml"), "--tenant", access[0].id, "--json")
        answer = CliRunner().invoke(privacy.app, [*args, *config], catch_exceptions=False)
        return json.loads(answer.stdout)

    backend = LocalBackend.load(ServeConfig(**settings))
    headers = {"authorization": f"Bearer {key}"}
    with (
        serve(folder, backend, keys=(access,), **settings) as served,
        httpx2.Client(base_url=served.url, headers=headers, timeout=60) as client,
    ):
        anna = Person(client, "anna@example.org", "remove the red xylophone", png_bytes(draw_picture((64, 64), seed=1)))
        bert = Person(client, "bert@example.org", "remove the blue zeppelin", png_bytes(draw_picture((64, 64), seed=2)))
        instruction = evaluated(tmp_path, served.url, key, monkeypatch)
        pseudonym, other = (
            served.run(lambda name=p.name: served.services.users.of(access[0].id, name)) for p in (anna, bert)
        )
        made = call("export", "--user", anna.name, "--out", str(tmp_path / "anna"))
        assert (made["kinds"]["jobs"], made["kinds"]["sessions"], made["kinds"]["feedback"]) == (1, 1, 2)
        exported = {path: path.read_bytes() for path in (tmp_path / "anna").rglob("*") if path.is_file()}
        images = [content for path, content in exported.items() if path.suffix in (".png", ".jpeg")]
        pixels = {image_sha256(decode_image(image)) for image in images}
        assert {image_sha256(decode_image(image)) for image in (anna.picture, *anna.results[2:])} <= pixels
        assert len(images) == made["kinds"]["pictures"]
        traces = anna.traces(pseudonym, images)
        assert anna.words.encode() in b"".join(exported.values()) and bert.words.encode() not in b"".join(
            exported.values()
        )
        whole = client.get(f"/v1/users/{other}").raise_for_status()
        with ZipFile(io.BytesIO(whole.content)) as archive:
            before = {name: archive.read(name) for name in archive.namelist()}

        stored = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        assert [trace for trace in traces if trace in stored][2:], "else the search below would prove nothing"
        receipt = call("erase", "--user", anna.name)
        kinds = {kind: one["count"] for kind, one in receipt["kinds"].items()}
        assert kinds == {kind: made["kinds"][kind] for kind in kinds}

        searched = [path for path in tmp_path.rglob("*") if path.is_file() and path not in exported]
        contents = {path: path.read_bytes() for path in searched}
        for path, content in contents.items():
            for trace in traces:
                assert trace not in content, (trace, path)
                assert trace not in str(path).encode(), (trace, path)
        logged = b"".join(content for path, content in contents.items() if "mlflow" in str(path.relative_to(tmp_path)))
        assert instruction.encode() in logged, "MLflow has the evaluation"

        with ZipFile(io.BytesIO(client.get(f"/v1/users/{bert.name}").content)) as archive:
            after = {name: archive.read(name) for name in archive.namelist()}
        assert {name for name in before if before[name] != after.get(name)} <= {"manifest.json"}
        assert client.get(f"/v1/users/{anna.name}").status_code == 404
        assert httpx2.get(bert.address).content == bert.results[-1]
        served.run(served.services.store.audit.verify)
    backend.close()
