"""What stock clients send beside an edit's own fields: sizes, DALL-E's words, addresses, HEAD, other origins."""

import asyncio
import base64
import io
import json
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest
from PIL import Image

from careedit.errors import InputError
from careedit.images import MAX_REFERENCES
from careedit_deployments.config import HttpConfig, ServeConfig, StateConfig
from careedit_deployments.edits.output import Output, encode
from careedit_deployments.errors import FieldError
from careedit_deployments.http.output import target_size
from careedit_deployments.http.schema import EditFields
from careedit_deployments.jobs.cleanup import Cleanup
from careedit_deployments.state.blobs import BlobStore
from fake_backend import FakeBackend, arm_info, mask_file, picture_file
from served import serve

SOURCE = picture_file()


def send(client, files=None, path="/v1/images/edits", **fields):
    return client.post(path, files=files or {"image": ("a.png", SOURCE)}, data={"prompt": "remove it", **fields})


def error_of(response, status=400):
    assert response.status_code == status, response.text
    return response.json()["error"]


def config(**http):
    return ServeConfig(arms={"tiny": {"expert_set": "tiny"}}, http=http)


def opened_file(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize("size", ["256x256", "1024x1024", "1536x1024", "1024x1536", "1x1", "97x13"])
def test_a_size_of_any_proportions_is_answered_exactly_with_the_whole_edit_in_the_middle(size):
    picture = Image.effect_noise((64, 48), 60).convert("RGB")
    asked = tuple(int(side) for side in size.split("x"))
    fields = EditFields(prompt="x", size=size)
    assert target_size(fields, picture.size, config()) == asked
    made = opened_file(encode(picture, Output(size=asked)))
    assert made.size == asked
    scale = min(asked[0] / 64, asked[1] / 48)
    inner = tuple(max(1, round(side * scale)) for side in picture.size)
    left, top = (asked[0] - inner[0]) // 2, (asked[1] - inner[1]) // 2
    box = (left, top, left + inner[0], top + inner[1])
    assert made.crop(box).tobytes() == picture.resize(inner, Image.Resampling.LANCZOS).tobytes()
    pixels = np.asarray(made)
    assert (pixels[:, :left] == pixels[:, left : left + 1]).all()
    assert (pixels[: top + 1] == pixels[top]).all()
    assert (pixels[box[3] :] == pixels[box[3] - 1]).all()


def test_a_size_of_other_proportions_is_taken_and_the_answer_says_how_it_was_filled(client, opened):
    answer = send(client, size="96x96").json()
    assert answer["size"] == "96x96"
    assert opened(answer["data"][0]["b64_json"]).size == (96, 96)
    (note,) = answer["careedit"]["notes"]
    assert "96x64 in the middle" in note
    assert send(client, size="96x64").json()["careedit"]["notes"] == []


def test_a_strict_server_refuses_such_a_size_with_one_that_fits_and_names_its_setting():
    fields = EditFields(prompt="x", size="96x96")
    with pytest.raises(FieldError, match=r"96x64") as refused:
        target_size(fields, (48, 32), config(compatibility="strict"))
    assert refused.value.field == "size"
    assert "http.compatibility" in str(refused.value)
    with pytest.raises(InputError, match="compatibility"):
        HttpConfig(compatibility="azure")


@pytest.mark.parametrize(("kind", "side"), [("webp", 16_384), ("jpeg", 65_536)])
def test_a_side_that_a_format_cannot_have_is_refused(kind, side):
    fields = EditFields(prompt="x", size=f"{side}x10", output_format=kind)
    with pytest.raises(FieldError, match=kind):
        target_size(fields, (1600, 100), config())


@pytest.mark.parametrize(
    ("field", "value", "answered"),
    [
        ("quality", "standard", "auto"),
        ("quality", "hd", "high"),
        ("input_fidelity", "high", None),
        ("input_fidelity", "low", None),
        ("moderation", "auto", None),
        ("moderation", "low", None),
    ],
)
def test_a_field_that_changes_nothing_here_is_taken_and_the_answer_says_so(client, painter, field, value, answered):
    answer = send(client, **{field: value}).json()
    (note,) = answer["careedit"]["notes"]
    assert note.startswith(field)
    assert answered in (None, answer["quality"])
    body = {"prompt": "x", "images": [{"image_url": base64.b64encode(SOURCE).decode()}], field: value}
    assert client.post("/v1/images/edits", json=body).json()["careedit"]["notes"] == [note]
    with client.stream("POST", "/v1/images/edits", json={**body, "stream": True}) as stream:
        assert note in stream.read().decode()
    assert send(client, path="/v1/routes", **{field: value}).status_code == 200
    assert [call.request.steps for call in painter.calls] == [8 if value == "hd" else 4] * 3


@pytest.mark.parametrize(
    ("field", "value"),
    [("background", "transparent"), ("input_fidelity", "most"), ("moderation", "none"), ("style", "vivid")],
)
def test_what_cannot_be_obeyed_is_refused_by_name(client, painter, field, value):
    error = error_of(send(client, **{field: value}, output_format="jpeg"))
    assert (error["param"], field in error["message"].lower()) == (field, True)
    assert painter.calls == []
    for fine in ("auto", "opaque"):
        assert send(client, background=fine).json()["background"] == "opaque"


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("seed", "-1", "random seed"),
        ("seed", "random", "random seed"),
        ("seed", "null", "random seed"),
        ("seed", str(2**63), "random seed"),
        ("steps", "0", "expert set"),
        ("steps", "-1", "expert set"),
        ("n", "0", "one image"),
        ("n", "-1", "one image"),
        ("top_k", "0", "default"),
        ("guidance", "-1", "default"),
        ("output_compression", "-1", "default"),
        ("size", "-1", "1024x1024"),
        ("size", "0x0", "1024x1024"),
        ("background", "transparent", "opaque"),
    ],
)
def test_a_value_that_stands_for_none_is_refused_with_what_to_do(client, field, value, hint):
    texts = error_of(send(client, **{field: value}))
    assert (texts["param"], hint in texts["message"]) == (field, True), texts
    number = int(value) if value.lstrip("-").isdigit() else value
    body = {"prompt": "x", "images": [{"image_url": base64.b64encode(SOURCE).decode()}], field: number}
    assert hint in error_of(client.post("/v1/images/edits", json=body))["message"]


def test_a_null_in_json_is_as_good_as_absent(client):
    body = {"prompt": "x", "images": [{"image_url": base64.b64encode(SOURCE).decode()}], "seed": None, "steps": None}
    assert client.post("/v1/images/edits", json=body).status_code == 200


@pytest.mark.parametrize("takes", [0, 1, 3])
def test_as_many_references_are_taken_as_the_served_base_takes(client, painter, monkeypatch, takes):
    monkeypatch.setattr(painter, "arms", {"tiny": arm_info(references=takes)})
    files = [("image[]", (f"{i}.png", SOURCE)) for i in range(16)]
    error = error_of(send(client, files))
    assert error["param"] == "image"
    assert f"takes {takes} reference" in error["message"]
    assert f"at most {takes + 1}" in error["message"]
    url = {"image_url": base64.b64encode(SOURCE).decode()}
    assert error_of(client.post("/v1/images/edits", json={"prompt": "x", "images": [url] * 16}))["param"] == "images"
    taken = send(client, files[: min(takes, MAX_REFERENCES) + 1])
    assert taken.status_code == 200
    assert len(painter.calls[-1].request.references) == min(takes, MAX_REFERENCES)
    assert client.get("/v1/models/tiny").json()["references"] == takes


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_curl_sends_files_under_every_name_and_asks_for_heads(served, painter, client, tmp_path):
    (tmp_path / "a.png").write_bytes(SOURCE)
    (tmp_path / "m.png").write_bytes(mask_file())
    fields = ["image[]=@a.png", "mask[]=@m.png", "prompt=enlève ça", "size=256x256", "response_format=b64_json"]
    form = [word for field in fields for word in ("-F", field)]
    curl = ["curl", "-sS", "--fail-with-body"]
    told = subprocess.run(
        [*curl, *form, served.url + "/v1/images/edits"], cwd=tmp_path, capture_output=True, check=True
    )
    assert json.loads(told.stdout)["size"] == "256x256"
    assert painter.calls[0].request.instruction == "enlève ça"
    assert painter.calls[0].request.mask is not None
    head = subprocess.run([*curl, "-I", served.url + "/healthz"], capture_output=True, text=True, check=True)
    assert head.stdout.startswith("HTTP/1.1 200")


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/images/variations", "/v1/images/generations/"])
@pytest.mark.parametrize("body", [{"json": {"prompt": "a cat"}}, {"files": {"image": ("a.png", SOURCE)}}])
def test_a_route_that_no_base_here_can_serve_says_which_one_to_use(client, path, body):
    error = error_of(client.post(path, **body), 404)
    assert error["code"] == "unknown_url"
    assert "/v1/images/edits" in error["message"]


def test_a_result_has_an_address_that_needs_no_key_and_cannot_be_changed(client, opened, served):
    answer = send(client, response_format="url", n="2", output_format="webp", seed="3").json()
    plain = send(client, n="2", output_format="webp", seed="3").json()
    assert [set(image) for image in answer["data"]] == [{"url"}] * 2
    assert [set(image) for image in plain["data"]] == [{"b64_json"}] * 2
    assert len({image["url"] for image in answer["data"]}) == 2
    for image, other in zip(answer["data"], plain["data"], strict=True):
        assert image["url"].startswith(served.url + "/v1/images/files/")
        fetched = httpx2.get(image["url"])
        assert (fetched.status_code, fetched.headers["content-type"]) == (200, "image/webp")
        assert fetched.content == base64.b64decode(other["b64_json"])
        assert httpx2.head(image["url"]).headers["content-length"] == str(len(fetched.content))
    path = urlsplit(answer["data"][0]["url"]).path
    for at in range(len("/v1/images/files/file_"), len(path)):
        if at % 9 == 0:
            changed = path[:at] + ("0" if path[at] != "0" else "1") + path[at + 1 :]
            assert error_of(client.get(changed), 404)["code"] in ("not_found", "unknown_url")


@pytest.mark.parametrize("name", ["../jobs/x.png", "%2e%2e%2fx.png", "x.png", f"{'0' * 64}.png", f"{'0' * 64}.sh"])
def test_no_other_path_leads_to_a_file(client, name):
    error_of(client.get(f"/v1/images/files/file_{int(time.time() * 1000):012x}{'0' * 40}/{name}"), 404)


def test_an_address_expires_and_its_file_is_deleted(tmp_path):
    state = {"database": f"sqlite+aiosqlite:///{tmp_path}/s.db", "blobs": str(tmp_path / "blobs"), "file_ttl_s": 0.5}
    http = {"public_url": "https://edits.example.org/api/"}
    with serve(tmp_path, FakeBackend(), state=state, http=http, auth={"required": False}) as server:
        with httpx2.Client(base_url=server.url) as client:
            url = send(client, response_format="url").json()["data"][0]["url"]
            assert url.startswith("https://edits.example.org/api/v1/images/files/file_")
            path = url.removeprefix("https://edits.example.org/api")
            assert client.get(path).headers["cache-control"].startswith("private, max-age=")
            assert list((tmp_path / "blobs/files").rglob("*.png"))
            while (answer := client.get(path)).status_code == 200:
                time.sleep(0.05)
            assert "expired" in error_of(answer, 404)["message"]
        services = server.services
        cleanup = Cleanup(services.store, services.blobs, services.metrics)
        server.run(cleanup.run_once)  # the server's own may have been faster
    assert list((tmp_path / "blobs/files").iterdir()) == []


def test_the_cleanup_leaves_addresses_that_are_good(tmp_path: Path):
    blobs = BlobStore(str(tmp_path))
    store = SimpleNamespace(
        storage=SimpleNamespace(scopes=AsyncMock(return_value=[])), config=StateConfig(file_ttl_s=100.0)
    )
    cleanup = Cleanup(store, blobs, None, clock=lambda: 1000.0)
    scopes = [f"files/file_{ms:012x}{'a' * 40}" for ms in (899_000, 901_000)]

    async def look():
        for scope in scopes:
            await blobs.put(scope, b"x", suffix="png")
        return await cleanup.expired_files()

    assert asyncio.run(look()) == scopes[:1]


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/v1/jobs", {"response_format": "url"}), ("/v1/images/edits", {"response_format": "url", "stream": "true"})],
)
def test_an_address_is_refused_where_there_is_none_to_give(client, path, fields):
    error = error_of(send(client, path=path, **fields))
    assert (error["param"], "Streams and jobs" in error["message"]) == ("response_format", True)


def test_a_turn_has_no_address_that_outlives_its_session_and_says_what_changed_nothing(client, opened):
    session = client.post("/v1/sessions", files={"image": ("a.png", SOURCE)}).json()["id"]
    fields = {"prompt": "x", "response_format": "url", "size": "64x64", "moderation": "low"}
    for path, more in ((f"/v1/sessions/{session}/turns", {}), ("/v1/images/edits", {"session": session})):
        assert error_of(client.post(path, json={**fields, **more}))["param"] == "response_format"
    del fields["response_format"]
    answer = client.post(f"/v1/sessions/{session}/turns", json=fields).json()
    assert opened(answer["data"][0]["b64_json"]).size == (64, 64)
    assert len(answer["careedit"]["notes"]) == 2


def test_an_idempotency_key_that_keeps_nothing_is_said(client):
    files = {"image": ("a.png", SOURCE)}
    answer = client.post("/v1/images/edits", files=files, data={"prompt": "x"}, headers={"Idempotency-Key": "k"})
    assert "/v1/jobs" in answer.json()["careedit"]["notes"][0]


def test_a_jobs_result_says_what_its_edit_would_have(client):
    job = send(client, path="/v1/jobs", size="96x96", quality="standard").json()
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as events:
        events.read()
    answer = client.get(f"/v1/jobs/{job['id']}").json()
    assert opened_file(base64.b64decode(answer["result"]["data"][0]["b64_json"])).size == (96, 96)
    assert len(answer["result"]["careedit"]["notes"]) == 2


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/v1/jobs", "/openapi.json", "/", "/docs"])
def test_head_answers_as_get_does_without_a_body(client, path):
    asked = client.get(path)
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    same = ("content-type", "content-length") if path != "/" else ("content-type",)
    assert [head.headers[name] for name in same] == [asked.headers[name] for name in same]


def test_head_of_a_stream_ends_at_once_and_of_what_is_not_there_is_404(client, painter):
    painter.pause = 0.05
    job = send(client, path="/v1/jobs", steps="40").json()["id"]
    started = time.monotonic()
    head = client.head(f"/v1/jobs/{job}/events")
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert time.monotonic() - started < 1.5
    client.delete(f"/v1/jobs/{job}")
    assert client.head("/v1/nothing").status_code == 404
    assert client.head("/v1/images/edits").status_code == 405


ORIGIN = "https://app.example.org"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A server that needs keys and lets pages of one origin in."""
    with serve(
        tmp_path_factory.mktemp("cors"), FakeBackend(), auth={"required": True}, http={"cors": [ORIGIN]}
    ) as server:
        yield server.url


def test_a_page_of_an_allowed_origin_may_ask_and_read_refusals(shared):
    asks = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-stainless-os",
    }
    preflight = httpx2.options(shared + "/v1/images/edits", headers=asks)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
    assert "POST" in preflight.headers["access-control-allow-methods"]
    for response in (
        httpx2.post(shared + "/v1/images/edits", headers={"origin": ORIGIN}),
        httpx2.get(shared + "/v1/nothing", headers={"origin": ORIGIN}),
        httpx2.get(shared + "/healthz", headers={"origin": ORIGIN}),
    ):
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in response.headers["access-control-expose-headers"].lower()


def test_a_page_of_another_origin_may_not(shared, client):
    asks = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in httpx2.options(shared + "/v1/images/edits", headers=asks).headers
    answer = httpx2.get(shared + "/healthz", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    closed = client.options("/v1/images/edits", headers={**asks, "origin": ORIGIN})
    assert (closed.status_code, "access-control-allow-origin" in closed.headers) == (405, False)


@pytest.mark.parametrize("origin", ["https://app.example.org/", "app.example.org", "", "https://a b"])
def test_an_origin_that_no_browser_sends_is_refused(origin):
    with pytest.raises(InputError, match=r"http\.cors"):
        HttpConfig(cors=(origin,))
