import httpx2
import pytest

from fake_backend import FakeBackend, picture_file
from served import a_key, serve

FORM = {"files": {"image": ("a.png", picture_file())}, "data": {"prompt": "remove it"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    http = {"cors": ["https://app.example.org"], "public_url": "https://edits.example.org/api"}
    with serve(tmp_path_factory.mktemp("open"), FakeBackend(), http=http) as running:
        yield running


@pytest.mark.parametrize("name", ["rebind.attacker.example", "127.0.0.1.attacker.example:80", "[", ""])
@pytest.mark.parametrize("path", ["/v1/jobs", "/", "/healthz"])
def test_a_server_without_keys_answers_under_no_other_name(server, name, path):
    answer = httpx2.get(server.url + path, headers={"Host": name})
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "foreign_page"
    assert "http.public_url" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["localhost:8000", "LOCALHOST", "[::1]:8000", "edits.example.org"])
def test_it_answers_under_its_own_names(server, name):
    assert httpx2.get(server.url + "/v1/jobs", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_foreign_page_changes_nothing(server, headers):
    for method, path in [("POST", "/v1/jobs"), ("DELETE", "/v1/jobs/job-1")]:
        answer = httpx2.request(method, server.url + path, headers=headers, **(FORM if method == "POST" else {}))
        assert answer.status_code == 403 and "http.cors" in answer.json()["error"]["message"]
    assert httpx2.get(server.url + "/v1/jobs").json()["data"] == []


def test_its_own_page_and_those_of_listed_origins_change_what_they_may(server):
    for origin in (server.url, "https://app.example.org"):
        answer = httpx2.post(server.url + "/v1/images/edits", headers={"Origin": origin}, **FORM)
        assert answer.status_code == 200


def test_a_server_with_keys_is_reached_under_any_name(tmp_path):
    key, access = a_key("one")
    with serve(tmp_path, FakeBackend(), keys=(access,), auth={"required": True}) as running:
        headers = {"Authorization": f"Bearer {key}", "Host": "gateway.example", "Origin": "https://elsewhere.example"}
        assert httpx2.post(running.url + "/v1/images/edits", headers=headers, **FORM).status_code == 200
