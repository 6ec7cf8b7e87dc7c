import socket
import subprocess
import sys
from urllib.parse import urlsplit

import httpx2
import pytest

from careedit_deployments.errors import RateLimitError
from careedit_deployments.http.auth import Caller, hash_key
from careedit_deployments.http.limits import Limiter
from careedit_deployments.listening import Limits
from fake_backend import FakeBackend, picture_file
from served import a_key, serve

FILES = {"image": ("a.png", picture_file())}
FIELDS = {"prompt": "remove it"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server that needs keys, and two of them; the second may do little."""
    free, free_record = a_key("free")
    tight, tight_record = a_key("tight", requests_per_minute=2, concurrent_requests=1)
    painter = FakeBackend()
    with serve(
        tmp_path_factory.mktemp("guarded"), painter, keys=(free_record, tight_record), auth={"required": True}
    ) as server:
        yield server, painter, free, tight


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def test_the_ingress_imports_no_torch():
    code = "import sys, careedit_deployments.http.app, careedit_deployments.edits.edit_service; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


@pytest.mark.parametrize("headers", [{}, bearer("wrong"), {"Authorization": "Bearer"}, {"Authorization": "Basic abc"}])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/nothing", "/v1/images/edits"])
def test_without_a_good_key_nothing_is_told(guarded, headers, path):
    response = httpx2.get(guarded[0].url + path, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/docs/swagger-ui.css", "/openapi.json"])
def test_health_and_documents_need_no_key(guarded, path):
    assert httpx2.get(guarded[0].url + path).status_code == 200


def test_the_schema_asks_for_a_key_where_one_is_required(guarded):
    paths = httpx2.get(guarded[0].url + "/openapi.json").json()["paths"]
    asked = {path: operation.get("security") for path, one in paths.items() for operation in one.values()}
    assert {path for path, security in asked.items() if security != [{"ApiKey": []}]} == {
        "/healthz",
        "/readyz",
        "/v1/images/files/{file_id}/{name}",
    }


def test_a_stranger_is_refused_before_the_body_is_read(guarded):
    address = urlsplit(guarded[0].url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        head = "POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode())  # and not one byte of the body
        assert connection.recv(4096).startswith(b"HTTP/1.1 401")


def test_a_key_is_kept_as_a_hash_only(guarded):
    server, _, free, _ = guarded
    records = [one.key for one in server.run(server.services.store.keys.all)]
    assert hash_key(free) in {record.sha256 for record in records}
    assert all(free not in record.model_dump_json() for record in records)


def test_an_edit_belongs_to_the_tenant_of_its_key(guarded):
    server, _, free, _ = guarded
    answer = httpx2.post(server.url + "/v1/images/edits", files=FILES, data=FIELDS, headers=bearer(free)).json()
    kept = server.run(lambda: server.services.store.edits.get(answer["careedit"]["id"]))
    assert kept.owner in {one.tenant.id for one in server.run(server.services.store.keys.all)}


def test_a_key_that_asks_too_often_is_told_when_to_come_back(guarded):
    server, _, _, tight = guarded
    with httpx2.Client(base_url=server.url, headers=bearer(tight)) as client:
        answers = [client.post("/v1/routes", files=FILES, data=FIELDS) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 30
        assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
        assert client.get("/v1/models").status_code == 200
    assert server.recording.total("careedit_refusals", reason="rate") == 1


def test_a_bucket_refills_at_its_rate():
    now = [0.0]
    limiter = Limiter(Limits(requests_per_minute=60), clock=lambda: now[0])
    caller = Caller()
    for _ in range(60):
        limiter.take(caller)
    with pytest.raises(RateLimitError) as refused:
        limiter.take(caller)
    assert refused.value.retry_after == pytest.approx(1.0)
    limiter.take(Caller(id="another"))
    now[0] = 1.0
    limiter.take(caller)
    with pytest.raises(RateLimitError):
        limiter.take(caller)


def test_a_key_may_have_so_many_edits_in_hand_and_no_more():
    limiter = Limiter(Limits(concurrent_requests=2))
    caller = Caller()
    with limiter.hold(caller), limiter.hold(caller):
        with pytest.raises(RateLimitError), limiter.hold(caller):
            pass
        with limiter.hold(Caller(id="another")), limiter.hold(Caller(id="third", concurrent_requests=1)):
            pass
    with limiter.hold(caller), limiter.hold(caller):
        assert True


@pytest.mark.parametrize("given", ["abc-123", "x" * 200, "with space", ""])
def test_a_request_id_goes_in_and_out(client, given):
    told = client.get("/healthz", headers={"x-request-id": given}).headers["x-request-id"]
    assert (told == given) == (given == "abc-123")
    assert told


def test_the_request_id_and_the_trace_reach_the_edit(client, painter):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"x-request-id": "my-request", "traceparent": trace, "tracestate": "a=b"}
    client.post("/v1/images/edits", files=FILES, data=FIELDS, headers=headers)
    assert painter.calls[-1].request_id == "my-request"
    assert dict(painter.calls[-1].trace_headers) == {"traceparent": trace, "tracestate": "a=b"}


def test_a_trace_that_is_none_is_dropped(client, painter):
    client.post("/v1/images/edits", files=FILES, data=FIELDS, headers={"traceparent": "zzz", "tracestate": "a=b"})
    assert dict(painter.calls[-1].trace_headers) == {}


def test_a_route_that_is_not_there_is_told_in_openais_shape(client):
    response = client.get("/v1/fine-tuning")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_url"


def test_a_method_that_a_route_has_not_is_told_with_those_it_has(client):
    response = client.get("/v1/images/edits")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["code"] == "method_not_allowed"


def test_nobody_knows_a_key_on_a_server_that_needs_none(client):
    assert client.get("/v1/models", headers=bearer("sk-whatever")).status_code == 200
