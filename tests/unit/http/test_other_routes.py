import base64
import re
from types import SimpleNamespace

import pytest

from careedit.record import help_of
from careedit.records import EarlyFilter
from fake_backend import mask_file, picture_file

SOURCE = picture_file()


def ref(data):
    return {"image_url": "data:image/png;base64," + base64.b64encode(data).decode()}


def test_the_models_are_the_arms(client):
    listed = client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["tiny"]
    assert client.get("/v1/models/tiny").json() == listed["data"][0]
    missing = client.get("/v1/models/other")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


def test_experts_are_told_with_what_they_are_for(client):
    experts = client.get("/v1/experts").json()["data"]
    assert [(expert["name"], expert["model"], expert["handles"]) for expert in experts] == [
        ("erase", "tiny", ["remove"]),
        ("style", "tiny", ["style"]),
    ]


def test_routing_is_explained_and_nothing_is_edited(client, painter):
    files = {"image": ("a.png", SOURCE), "mask": ("m.png", mask_file())}
    answer = client.post("/v1/routes", files=files, data={"prompt": "remove it", "n": "2", "quality": "high"}).json()
    assert answer["routing"]["weights"] == {"erase": 1.0}
    assert (answer["model"], answer["steps"], answer["evaluations"]) == ("tiny", 8, 16)
    fixed = client.post("/v1/routes", json={"images": [ref(SOURCE)], "prompt": "x", "expert": "style"}).json()
    assert (fixed["routing"]["router"], fixed["routing"]["weights"]) == ("fixed", {"style": 1.0})
    assert painter.calls == []


def test_pairs_are_judged_in_their_order(client):
    pairs = [
        {"source": ref(SOURCE), "edited": ref(SOURCE), "instruction": "remove it"},
        {"source": ref(SOURCE), "edited": ref(picture_file(colour=(0, 0, 0))), "instruction": "remove it"},
    ]
    scores = client.post("/v1/scores", json={"pairs": pairs}).json()["scores"]
    assert [score["overall"] for score in scores] == [0.0, 1.0]


def test_without_a_judge_there_are_no_scores(client, painter):
    painter.judge = False
    pair = {"source": ref(SOURCE), "edited": ref(SOURCE), "instruction": "x"}
    response = client.post("/v1/scores", json={"pairs": [pair]})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "scorer_unavailable"


def test_health_is_the_process_and_readiness_is_what_stands_behind_it(client, painter):
    assert client.get("/readyz").json() == {"status": "ok", "reasons": {}}
    painter.unready = {"tiny": "No replica is up."}
    try:
        refused = client.get("/readyz")
        assert (refused.status_code, refused.json()["reasons"]) == (503, {"tiny": "No replica is up."})
        assert client.get("/healthz").json()["status"] == "ok"
    finally:
        painter.unready = {}


def test_the_schema_states_both_forms_of_an_edit_and_one_shape_of_errors(client):
    document = client.get("/openapi.json").json()
    edit = document["paths"]["/v1/images/edits"]["post"]
    assert set(edit["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    schemas = document["components"]["schemas"]
    assert {"image", "image[]", "mask", "prompt", "early_filter"} <= set(schemas["EditForm"]["properties"])
    assert "images" in schemas["EditBody"]["properties"]
    assert "422" not in edit["responses"]
    streams = (edit, document["paths"]["/v1/jobs/{job_id}/events"]["get"])
    for event in (one["responses"]["200"]["content"]["text/event-stream"]["schema"] for one in streams):
        assert (event["type"], set(event["properties"])) == ("object", {"id", "event", "data"})
    assert edit["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/ImagesResponse")
    for name in ("EditForm", "EditBody", "ErrorResponse", "EarlyFilter", "ImageRef"):
        assert name in schemas


def test_the_schema_describes_fields_by_their_docstrings(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]

    def described(schema: str, field: str) -> str:
        return schemas[schema]["properties"][field]["description"]

    for schema in ("EditForm", "EditBody"):
        assert described(schema, "seed").startswith("careedit: seed of the first image's noise")
    assert " ".join(described("EarlyFilter", "candidates").split()) == help_of(EarlyFilter, "candidates")
    assert described("EditTrace", "nfe").startswith("Number of transformer evaluations")
    assert described("ImagesResponse", "created") == "Time at which the answer was made, in Unix seconds."
    assert described("ErrorDetail", "message") == "A sentence that says what is wrong and what to do."


def test_the_schema_says_how_to_send_a_key_and_where_none_is_needed(client):
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    assert document["paths"]["/v1/images/edits"]["post"]["security"] == [{"ApiKey": []}, {}], (
        "on loopback none is needed"
    )
    assert "security" not in document["paths"]["/healthz"]["get"]


def test_the_api_is_described_by_a_page_that_loads_nothing_from_elsewhere(client):
    page = client.get("/docs")
    assert page.status_code == 200
    assert "//" not in re.sub(r"\s// .*", "", page.text), "no address of another server"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "http" not in policy
    named = re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text)
    assert len(named) == 2
    for name in named:
        answer = client.get(f"/{name}")
        assert (answer.status_code, len(answer.content) > 100_000) == (200, True)
    assert client.get("/docs/elsewhere.js").status_code == 404


@pytest.mark.parametrize("page", ["/", "/status", "/docs"])
def test_every_page_forbids_what_comes_from_elsewhere(client, page):
    headers = client.get(page).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == policy["base-uri"] == "'self'"
    assert re.fullmatch(r"'nonce-[\w-]{20,}'", policy["script-src"]), "no inline handler and no other script"
    assert headers["x-content-type-options"] == "nosniff"
    assert client.get(page).headers["content-security-policy"] != headers["content-security-policy"], (
        "one nonce per page"
    )


def test_readiness_warns_of_what_does_not_prevent_edits(client, served, monkeypatch):
    warnings = served.services.warnings
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5 * 2**20))
    monkeypatch.setitem(warnings, "cleanup of jobs", "It waits.")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"], answer.json()["reasons"]) == (200, "ok", {})
    assert answer.json()["warnings"] == {
        "cleanup of jobs": "It waits.",
        "disk": "Only 5 MiB are left for images; free some, or jobs and sessions are refused.",
    }
