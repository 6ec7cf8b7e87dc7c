"""LiteLLM's proxy, with the configuration of the docs, stands between OpenAI's client and careedit."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator

import openai
import pytest

from foreign import ROOT, program, running
from served import Served

pytestmark = pytest.mark.timeout(900)  # the proxy takes up to a minute to start, on a busy machine longer
KEY = "sk-" + "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def client(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    config = ROOT / "docs/integrations/litellm.yaml"
    command = [program("litellm", "litellm"), "--config", config, "--host", "127.0.0.1", "--port", "PORT"]
    own = {"CAREEDIT_URL": f"{served.url}/v1", "CAREEDIT_KEY": "none", "LITELLM_MASTER_KEY": KEY}
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "DISABLE_ADMIN_UI": "true"}
    with (
        running(command, tmp_path_factory.mktemp("litellm"), "/health/liveliness", **own, **offline) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=120) as proxied,
    ):
        yield proxied


def test_the_proxy_lists_the_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["careedit"]


def test_an_edit_arrives_and_is_the_one_that_careedit_makes(client, served, picture) -> None:
    words = {"image": ("a.png", picture), "prompt": "remove the circle", "extra_body": {"seed": 7, "steps": 2}}
    proxied = client.images.edit(model="careedit", size="32x32", output_format="webp", **words)
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as direct:
        plain = direct.images.edit(model="tiny", size="32x32", output_format="webp", **words)
    assert proxied.data[0].b64_json == plain.data[0].b64_json
    assert base64.b64decode(proxied.data[0].b64_json)[8:12] == b"WEBP"
    assert (proxied.size, proxied.usage.total_tokens) == (plain.size, plain.usage.total_tokens)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"image": ("a.png", b"no picture")}, "give PNG, JPEG or WebP"),
        ({"extra_body": {"expert": "nope"}}, "The expert 'nope' does not exist"),
        ({"extra_body": {"nofield": 1}}, "The field 'nofield' is unknown here"),
    ],
)
def test_what_careedit_refuses_comes_back_with_status_and_sentence(client, picture, wrong, sentence) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.edit(model="careedit", **({"image": ("a.png", picture), "prompt": "remove it"} | wrong))
    assert refused.value.status_code == 400
    assert sentence in str(refused.value)


def test_streams_do_not_work_through_the_proxy_as_the_page_says(client, picture) -> None:
    with pytest.raises(openai.InternalServerError, match="OpenAIException"):
        client.images.edit(
            model="careedit", image=("a.png", picture), prompt="remove it", stream=True, partial_images=1
        )


def test_a_caller_with_too_many_requests_gets_that_status(client, picture) -> None:
    with pytest.raises(openai.RateLimitError, match="requests per minute"):
        for _ in range(100):  # careedit counts what it refuses too
            with contextlib.suppress(openai.BadRequestError):
                client.images.edit(model="careedit", image=("a.png", b"no picture"), prompt="x")
