"""A copy of what is stored of a user: complete, with hashes, and nothing half-written."""

import base64
import hashlib
import io
import json
from zipfile import ZipFile

import httpx2
import pytest

from an_end_user import use
from careedit_deployments.cli import privacy
from careedit_deployments.edits import personal_export
from careedit_deployments.http.admission import _shown
from fake_backend import FakeBackend, picture_file
from served import serve


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The export of one of two users as a zip file, and the ids of what the user has."""
    with serve(tmp_path_factory.mktemp("state"), FakeBackend()) as served:
        with httpx2.Client(base_url=served.url, timeout=30) as client:
            mine, _ = use(client, "anna", "remove the xylophone"), use(client, "bert", "remove the zeppelin")
            answer = client.get("/v1/users/anna").raise_for_status()
            assert answer.headers["content-type"] == "application/zip"
            refused = client.get("/v1/users/nobody")
            assert (refused.status_code, "Nothing is stored of this user" in refused.text) == (404, True)
        entry = served.run(lambda: served.services.store.audit.latest(limit=1))[0]
        yield ZipFile(io.BytesIO(answer.content)), mine, entry


def test_an_export_has_everything_of_the_user_and_the_hash_of_each_file(archive):
    files, (edit, session, job), entry = archive
    manifest = json.loads(files.read("manifest.json"))
    assert manifest["kinds"] == {
        "jobs": 1, "batches": 0, "uploads": 0, "sessions": 1, "files": 1, "edits": 4, "feedback": 1, "assignments": 1,
        "audit": 0, "pictures": 5,
    }  # fmt: skip
    assert files.namelist() == [*(file["name"] for file in manifest["files"]), "manifest.json"]
    for file in manifest["files"]:
        content = files.read(file["name"])
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    words = b"".join(files.read(name) for name in files.namelist())
    assert b"xylophone" in words and b"zeppelin" not in words
    stored = json.loads(files.read(f"jobs/{job}/job.json"))
    assert (stored["id"], stored["events"][0]["kind"], stored["messages"]) == (job, "queued", [])
    source = stored["order"]["image"]
    assert source.endswith(".png") and files.read(source) == picture_file()
    assert json.loads(files.read(f"sessions/{session}/session.json"))["turns"][0]["picture"] in files.namelist()
    edits = [json.loads(line) for line in files.read("edits-0001.jsonl").splitlines()]
    assert edit in {one["id"] for one in edits}
    assert json.loads(files.read("feedback-0001.jsonl"))["comment"] == "remove the xylophone"
    assert (entry.action, entry.detail["export"]) == ("privacy.exported", manifest["id"])


def test_an_export_names_the_batches_of_a_user_and_that_of_the_tenant_has_their_inputs(tmp_path):
    url = "data:image/png;base64," + base64.b64encode(picture_file()).decode()
    with serve(tmp_path, FakeBackend()) as served, httpx2.Client(base_url=served.url, timeout=30) as client:
        lines = [
            {"custom_id": user, "method": "POST", "url": "/v1/images/edits",
             "body": {"prompt": f"paint {user}", "user": user, "images": [{"image_url": url}]}}
            for user in ("anna", "boris")
        ]  # fmt: skip
        sent = "\n".join(map(json.dumps, lines))
        upload = client.post("/v1/files", files={"file": ("in.jsonl", sent)}, data={"purpose": "batch"}).json()["id"]
        order = {"input_file_id": upload, "endpoint": "/v1/images/edits", "completion_window": "24h"}
        batch = client.post("/v1/batches", json=order).json()["id"]
        while client.get(f"/v1/batches/{batch}").json()["status"] != "completed":
            pass
        one = ZipFile(io.BytesIO(client.get("/v1/users/anna").content))
        store, blobs = served.services.store, served.services.blobs

        async def whole():
            data = await personal_export.find_data(store, "anonymous", None)
            files = personal_export.export_files(store, blobs, data, "anonymous", whole=True, actor="operator")
            return {name: content async for name, content in files}

        every = served.run(whole)
    kinds = json.loads(one.read("manifest.json"))["kinds"]
    assert (kinds["jobs"], kinds["batches"], kinds["uploads"]) == (1, 1, 1)
    assert json.loads(one.read("batches-0001.jsonl"))["id"] == batch
    assert b"paint boris" not in b"".join(one.read(name) for name in one.namelist())
    assert upload in every["uploads-0001.jsonl"].decode()
    (name,) = [name for name in every if name.endswith("input.jsonl")]
    assert every[name] == sent.encode()


def test_spans_have_no_name_of_a_user():
    assert (_shown("/v1/users/anna%20b"), _shown("/v1/users/anna/b")) == ("/v1/users/NAME", "/v1/users/NAME")
    assert _shown("/v1/jobs/job_1") == "/v1/jobs/job_1"


def test_the_command_writes_a_folder_or_a_zip_file_or_nothing(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def export(out, *args):
        return call(privacy, "export", "--tenant", "anonymous", "--out", str(out), *args)

    assert "Nothing is stored of this tenant" in str(export(tmp_path / "a").exception)
    with serve(tmp_path, FakeBackend(), state={"database": f"sqlite+aiosqlite:///{tmp_path}/state.db"}) as served:
        with httpx2.Client(base_url=served.url, timeout=30) as client:
            job = use(client, "anna", "remove it")[2]
        made = json.loads(export(tmp_path / "a", "--user", "anna", "--json").stdout)
        assert (tmp_path / "a").stat().st_mode & 0o077 == 0, "other users of this machine read nothing"
        names = {str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*") if path.is_file()}
        assert names == {*(file["name"] for file in made["files"]), "manifest.json"}
        assert "exists; give a new folder" in str(export(tmp_path / "a").exception)
        blobs = served.services.blobs
        (lost,) = [key for key in served.run(lambda: blobs.keys(f"jobs/{job}")) if key.endswith(".sent")]
        (tmp_path / "careedit-state/blobs" / lost).write_bytes(b"damaged")
        assert "pictures" in export(tmp_path / "a.zip", "--user", "anna").stdout
        with ZipFile(tmp_path / "a.zip") as archive:
            manifest = json.loads(archive.read("manifest.json"))
        assert (manifest["lost_pictures"], manifest["kinds"]["pictures"]) == ([lost], made["kinds"]["pictures"] - 1)

        def fail(*args, **kwargs):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(privacy.os, "replace", fail)
        assert "No space left on device" in str(export(tmp_path / "b").exception)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "b"))]
