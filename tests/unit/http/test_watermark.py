"""Every picture that leaves a server has the watermark of its edit, and Content Credentials that say so."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from careedit.errors import InputError
from careedit.images import decode_image
from careedit.provenance.authority import write_authority
from careedit.provenance.reading import read_provenance
from careedit.provenance.signing import WATERMARKED
from careedit.provenance.watermark import Marking, find_watermark
from careedit_deployments.cli.serve import at_address, check_credentials
from careedit_deployments.config import ServeConfig
from fake_backend import FakeBackend, picture_file
from served import Served, serve

SOURCE, SMALL = picture_file((400, 384)), picture_file((100, 90))
MARKING = Marking(b"k" * 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "key").write_bytes(MARKING.key)
    write_authority(folder / "ca")
    return folder


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    watermark, credentials = {"key_file": str(folder / "key")}, {"folder": str(folder / "ca")}
    with serve(
        tmp_path_factory.mktemp("marked"), FakeBackend(), watermark=watermark, credentials=credentials
    ) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=served.url, timeout=30) as client:
        yield client


def edit(client: httpx2.Client, source: bytes = SOURCE, path: str = "/v1/images/edits", **fields: str) -> Any:
    answer = client.post(path, files={"image": ("a.png", source)}, data={"prompt": "remove it", **fields})
    assert answer.is_success, answer.text
    return answer


def check(file: bytes | str, edit_id: str) -> None:
    """The picture has the watermark of the edit, and its Content Credentials are valid and say that it has one."""
    data = base64.b64decode(file) if isinstance(file, str) else file
    found = find_watermark(decode_image(data))
    assert found is not None
    assert found[1].payload == MARKING.payload(edit_id)
    assert read_provenance(data).state == "valid"
    assert WATERMARKED.encode() in data


@pytest.mark.parametrize("fields", [{"output_format": "png"}, {"output_format": "jpeg", "output_compression": "75"}])
def test_an_answer_has_the_watermark_of_its_edit_and_so_has_an_edit_of_it(
    client: httpx2.Client, fields: dict[str, str]
) -> None:
    first = edit(client, **fields).json()
    check(first["data"][0]["b64_json"], first["careedit"]["id"])
    assert not first["careedit"]["notes"]
    second = edit(client, base64.b64decode(first["data"][0]["b64_json"]), **fields).json()
    check(second["data"][0]["b64_json"], second["careedit"]["id"])


def test_a_large_result_from_a_process_and_at_an_address_has_it(client: httpx2.Client) -> None:
    large = edit(client, SMALL, size="1110x1000", output_format="webp", response_format="url").json()
    check(httpx2.get(large["data"][0]["url"]).content, large["careedit"]["id"])


def test_previews_and_results_of_streams_and_jobs_have_it(client: httpx2.Client) -> None:
    lines = edit(client, stream="true", partial_images="1").text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert len(events) == 2
    for event in events:
        check(event["b64_json"], event["careedit"]["id"])
    job = edit(client, path="/v1/jobs").json()["id"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as following:
        for _ in following.iter_lines():
            pass
    result = client.get(f"/v1/jobs/{job}").json()["result"]
    check(result["data"][0]["b64_json"], result["careedit"]["id"])


def test_each_turn_of_a_session_has_its_own(client: httpx2.Client) -> None:
    session = client.post("/v1/sessions", files={"image": ("a.png", SOURCE)}).json()["id"]
    for _ in range(3):
        answer = client.post(f"/v1/sessions/{session}/turns", json={"prompt": "remove it"}).json()
        check(answer["data"][0]["b64_json"], answer["careedit"]["id"])
        turn = client.get(f"/v1/sessions/{session}/turns/{answer['careedit']['turn']}").json()
        check(turn["b64_json"], answer["careedit"]["id"])


def test_a_small_result_has_none_and_the_answer_says_so(client: httpx2.Client) -> None:
    answer = edit(client, SMALL).json()
    (note,) = answer["careedit"]["notes"]
    assert note == "The result has no watermark: it is 100x90, and a watermark needs 384 pixels in width and height."
    data = base64.b64decode(answer["data"][0]["b64_json"])
    assert (read_provenance(data).state, WATERMARKED.encode() in data) == ("valid", False)


def test_a_watermark_without_credentials_is_the_only_change_of_a_result(folder: Path, tmp_path: Path) -> None:
    pictures = []
    for name, extra in (("plain", {}), ("marked", {"watermark": {"key_file": str(folder / "key")}})):
        server = serve(tmp_path / name, FakeBackend(), **extra)
        with server as running, httpx2.Client(base_url=running.url, timeout=30) as client:
            answer = edit(client).json()
        pictures.append(decode_image(base64.b64decode(answer["data"][0]["b64_json"])))
    plain, marked = pictures
    mark = MARKING.of(answer["careedit"]["id"], plain.size)
    assert mark is not None
    assert mark.embed(plain).tobytes() == marked.tobytes() != plain.tobytes()


def test_serve_refuses_a_watermark_without_a_key_and_finds_its_file_from_everywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(**watermark: str) -> ServeConfig:
        return at_address(ServeConfig(arms={"tiny": {"expert_set": "tiny"}}, watermark=watermark), None, 0)

    monkeypatch.chdir(folder)
    good = config(key_file="key")
    assert good.watermark is not None
    assert (good.watermark.key_file, check_credentials(good)) == (str(folder / "key"), [])
    for given, sentence in {
        ("key_file", "none"): "none' cannot be read",
        ("key_env", "NO_KEY"): "NO_KEY with the watermark key is not set",
    }.items():
        with pytest.raises(InputError, match=sentence):
            check_credentials(config(**dict([given])))
    with pytest.raises(InputError, match="either key_env or key_file"):
        config()
