"""Every picture that leaves a server is signed: answers, streams, addresses, jobs, turns of sessions. One chain per picture."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import c2pa
import httpx2
import pytest

from careedit.errors import InputError
from careedit.images import decode_image
from careedit.provenance.authority import make_authority, write_authority
from careedit.provenance.certificates import from_folder
from careedit.provenance.native import context
from careedit.provenance.reading import Provenance, read_provenance
from careedit_deployments.cli.doctor import check
from careedit_deployments.cli.machine import look
from careedit_deployments.cli.serve import at_address, check_credentials
from careedit_deployments.config import ServeConfig
from careedit_deployments.credentials import CredentialsConfig
from fake_backend import FakeBackend, picture_file
from served import Served, serve

SOURCE = picture_file((60, 50))
ARMS: dict[str, Any] = {"tiny": {"expert_set": "tiny"}}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority") / "ca"
    write_authority(folder, "test", days=10)
    return folder


@pytest.fixture(scope="module")
def served(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    credentials = {"folder": str(authority), "keep_source": True}
    with serve(tmp_path_factory.mktemp("signed"), FakeBackend(), credentials=credentials) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=served.url, timeout=30) as client:
        yield client


@pytest.fixture
def read(authority: Path) -> Any:
    """Reads the picture of an answer, which must be signed by the test's authority."""

    def get(file: bytes | str) -> Provenance:
        data = base64.b64decode(file) if isinstance(file, str) else file
        found = read_provenance(data, trust=(authority / "authority.pem").read_text())
        assert (found.state, found.marked) == ("trusted", True)
        return found

    return get


def edits_of(found: Provenance) -> list[str | None]:
    """The ids of the edits of a chain, the last edit first."""
    return [link.credit.edit if link.credit else None for link in found.chain]


def edit(client: httpx2.Client, source: bytes = SOURCE, path: str = "/v1/images/edits", **fields: str) -> Any:
    answer = client.post(path, files={"image": ("a.png", source)}, data={"prompt": "remove it", **fields})
    assert answer.is_success, answer.text
    return answer


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_an_answer_is_signed_and_an_edit_of_it_continues_its_chain(client: httpx2.Client, read: Any, kind: str) -> None:
    first = edit(client, output_format=kind, size="120x100").json()
    signed = base64.b64decode(first["data"][0]["b64_json"])
    second = edit(client, signed, n="2").json()
    for image in second["data"]:
        found = read(image["b64_json"])
        assert edits_of(found) == [second["careedit"]["id"], first["careedit"]["id"]]
        credit = found.chain[0].credit
        assert (credit.expert_set_sha256, credit.experts) == ("0" * 64, {"erase": 1.0})
        assert credit.model_licence == "Apache-2.0"


def test_a_large_result_from_a_process_and_a_result_at_an_address_are_signed(client: httpx2.Client, read: Any) -> None:
    large = edit(client, size="1200x1000", output_format="jpeg", response_format="url").json()
    stored = httpx2.get(large["data"][0]["url"]).content
    assert edits_of(read(stored)) == [large["careedit"]["id"]]
    assert decode_image(stored).size == (1200, 1000)


def test_previews_and_results_of_a_stream_are_signed(client: httpx2.Client, read: Any) -> None:
    lines = edit(client, stream="true", partial_images="1").text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert [event["type"] for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    for event in events:
        assert edits_of(read(event["b64_json"])) == [event["careedit"]["id"]]


def test_results_of_a_job_are_signed_and_their_stored_bytes_are_what_is_answered(
    client: httpx2.Client, read: Any
) -> None:
    first = edit(client).json()
    signed = base64.b64decode(first["data"][0]["b64_json"])
    job = edit(client, signed, "/v1/jobs").json()["id"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as events:
        for _ in events.iter_lines():
            pass
    result = client.get(f"/v1/jobs/{job}").json()["result"]
    found = read(result["data"][0]["b64_json"])
    assert edits_of(found) == [result["careedit"]["id"], first["careedit"]["id"]]
    again = client.get(f"/v1/jobs/{job}").json()["result"]
    assert again["data"] == result["data"]


def test_turns_of_a_session_are_signed_and_form_a_chain_that_goes_on_from_its_source(
    client: httpx2.Client, read: Any
) -> None:
    first = edit(client).json()
    signed = base64.b64decode(first["data"][0]["b64_json"])
    session = client.post("/v1/sessions", files={"image": ("a.png", signed)}).json()["id"]
    answers = [client.post(f"/v1/sessions/{session}/turns", json={"prompt": "remove it"}).json() for _ in range(3)]
    source, ids = first["careedit"]["id"], [answer["careedit"]["id"] for answer in answers]
    assert edits_of(read(answers[-1]["data"][0]["b64_json"])) == [*ids[::-1], source]
    turn = client.get(f"/v1/sessions/{session}/turns/{answers[1]['careedit']['turn']}").json()
    assert edits_of(read(turn["b64_json"])) == [*ids[1::-1], source]
    fields = {"prompt": "remove it", "turn": "source"}
    other = client.post(f"/v1/sessions/{session}/turns", json=fields).json()
    assert edits_of(read(other["data"][0]["b64_json"])) == [other["careedit"]["id"], source]
    kept, answered = (
        decode_image(base64.b64decode(file)) for file in (turn["b64_json"], answers[1]["data"][0]["b64_json"])
    )
    assert kept.tobytes() == answered.tobytes()


def test_a_chain_that_is_full_starts_again_in_a_session(
    client: httpx2.Client, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("careedit.provenance.signing.MAX_SOURCE", 7000)
    session = client.post("/v1/sessions", files={"image": ("a.png", SOURCE)}).json()["id"]
    answers = [client.post(f"/v1/sessions/{session}/turns", json={"prompt": "remove it"}).json() for _ in range(2)]
    assert not answers[0]["careedit"]["notes"]
    (note,) = answers[1]["careedit"]["notes"]
    assert "starts again with this turn" in note
    assert edits_of(read(answers[1]["data"][0]["b64_json"])) == [answers[1]["careedit"]["id"]]


def test_a_source_whose_credentials_are_damaged_is_refused_before_the_edit(client: httpx2.Client) -> None:
    signed = base64.b64decode(edit(client).json()["data"][0]["b64_json"])
    at = signed.index(b"caBX") + 4
    files = {"image": ("a.png", signed[:at] + bytes(64) + signed[at + 64 :])}
    for path, data in (("/v1/images/edits", {"prompt": "remove it"}), ("/v1/sessions", {})):
        refused = client.post(path, files=files, data=data)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "image")


def test_a_source_with_a_real_manifest_of_50_mb_is_refused_in_a_sentence(
    client: httpx2.Client, authority: Path
) -> None:
    identity = from_folder(authority)
    manifest = {"claim_generator_info": [{"name": "x"}], "thumbnail": {"format": "image/jpeg", "identifier": "thumb"}}
    signed = io.BytesIO()
    info = c2pa.C2paSignerInfo(identity.algorithm, identity.chain, identity.key, None)
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest, context()) as builder:
        builder.add_resource("thumb", io.BytesIO(bytes(50_000_000)))
        builder.sign(signer, "image/png", io.BytesIO(SOURCE), signed)
    for path, fields in (("/v1/images/edits", {"prompt": "remove it"}), ("/v1/sessions", {})):
        refused = client.post(path, files={"image": ("a.png", signed.getvalue())}, data=fields)
        assert refused.status_code == 400
        assert "have 50,00" in refused.json()["error"]["message"]
        assert "the limit is 1,048,576, so save it without them" in refused.json()["error"]["message"]


def test_without_keep_source_nothing_of_the_source_is_in_the_result(authority: Path, tmp_path: Path, read: Any) -> None:
    server = serve(tmp_path, FakeBackend(), credentials={"folder": str(authority)})
    with server as running, httpx2.Client(base_url=running.url, timeout=30) as client:
        first = edit(client).json()
        second = edit(client, base64.b64decode(first["data"][0]["b64_json"])).json()
        assert edits_of(read(second["data"][0]["b64_json"])) == [second["careedit"]["id"]]
        warned = client.get("/readyz").json()["warnings"]["credentials"]
    assert "which signs results, expires on" in warned


def test_serve_and_doctor_refuse_what_cannot_sign_and_warn_before_the_end(
    authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(**credentials: Any) -> ServeConfig:
        return at_address(ServeConfig(arms=ARMS, credentials=credentials), None, 0)

    monkeypatch.chdir(authority.parent)
    good = config(folder="ca")
    assert good.credentials == CredentialsConfig(folder=str(authority))  # replicas run in other folders
    (warning,) = check_credentials(good)
    lines = [line for line in check(good, look()) if line.subject == "credentials"]
    assert [(line.status, line.message) for line in lines] == [("warn", warning)]

    write_authority(tmp_path / "odd")
    (tmp_path / "odd" / "key.pem").write_bytes(make_authority()["key.pem"])
    odd = config(folder=str(tmp_path / "odd"))
    with pytest.raises(InputError, match="does not fit"):
        check_credentials(odd)
    assert [line.status for line in check(odd, look()) if line.subject == "credentials"] == ["fail"]
    with pytest.raises(InputError, match="variable NO_SUCH_CHAIN is not set"):
        check_credentials(config(certificate_env="NO_SUCH_CHAIN", key_env="NO_SUCH_KEY"))
    with pytest.raises(InputError, match="either folder, or both certificate_env and key_env"):
        config(certificate_env="NO_SUCH_CHAIN")


def test_a_certificate_that_expires_while_the_server_runs_stops_the_answers(
    authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(tmp_path, FakeBackend(), credentials={"folder": str(authority)}) as server:
        assert server.services is not None
        signing = server.services.codecs.signing
        assert signing is not None
        late = type(signing.identity)(**{**vars(signing.identity), "ends": signing.identity.ends.replace(year=2020)})
        monkeypatch.setattr(signing, "identity", late)
        answer = httpx2.post(
            server.url + "/v1/images/edits", files={"image": ("a.png", SOURCE)}, data={"prompt": "remove it"}
        )
    assert answer.status_code == 503
    assert "expired on 2020-" in answer.json()["error"]["message"]
