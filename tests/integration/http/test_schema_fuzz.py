"""Whatever the OpenAPI schema allows, and what it forbids: nothing makes the server fail."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from fake_backend import FakeBackend
from served import serve

EXAMPLES = 8


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """A server whose edits take no time."""
    with serve(tmp_path_factory.mktemp("painted"), FakeBackend()) as server:
        yield server


def test_no_request_that_the_schema_describes_makes_the_server_fail(painted):
    schema = schemathesis.openapi.from_url(f"{painted.url}/openapi.json")
    tried = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        path = operation.path
        if path.endswith("/events") or path in ("/", "/status"):
            continue
        posts = operation.method == "post" and operation.body
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if posts else (GenerationMode.POSITIVE,):

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def call(case):
                response = case.call(timeout=20)
                assert response.status_code < 500, response.text
                tried[case.operation.label] = tried.get(case.operation.label, 0) + 1
                if response.status_code >= 400:
                    assert set(response.json()["error"]) == {"message", "type", "param", "code"}

            call()
    assert len(tried) > 8, tried
