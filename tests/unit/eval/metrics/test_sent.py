"""Whatever a judge is sent, and where to, is part of the metric's identity: nothing is measured with one and told as the other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from careedit.files import json_digest
from careedit.records import EarlyFilter
from careedit.scoring import atomic, pairwise, vqa
from careedit.scoring.openai import EndpointAsker
from careedit.scoring.openai_http import EndpointConfig
from careedit.scoring.sent import probe_picture
from careedit.scoring.vlm import load_asker
from careedit_eval.editors import resolve_arm
from careedit_eval.metrics import load_metric
from careedit_eval.metrics.writer import EndpointWriter
from careedit_eval.suite import Arm

ENDPOINT = {"base_url": "http://localhost:8000/v1", "model": "m", "answers": "json"}
CHANGES = {
    "base_url": "http://localhost:8001/v1",
    "model": "n",
    "revision": "2",
    "answers": "logprobs",
    "seed": 1,
    "extra": {"temperature": 0.5},
}
"""Fields of an endpoint that change what is sent, where to, or what is known of the model."""
PATIENCE = {
    "api_key_env": "JUDGE_KEY",
    "timeout": 5.0,
    "attempts": 2,
    "backoff": 1.0,
    "max_backoff": 2.0,
    "concurrency": 1,
}
"""Fields that do not."""


@pytest.fixture(autouse=True)
def _small_probe(monkeypatch) -> None:
    """The picture that finds out how pictures are sent is large; a small one is encoded in no time."""
    for module in ("careedit.scoring.sent", "careedit_eval.metrics.writer"):
        monkeypatch.setattr(f"{module}.probe_picture", lambda *_: probe_picture().crop((0, 0, 64, 64)))


def key(name: str, **changes) -> str:
    return load_metric(name, endpoint=ENDPOINT | changes).spec.key


def test_every_field_of_an_endpoint_is_known_to_count_or_not() -> None:
    assert set(EndpointConfig.model_fields) == {*CHANGES, *PATIENCE}


@pytest.mark.parametrize("name", ["vqa", "atomic", "pairwise", "viescore"])
def test_what_is_sent_and_where_to_makes_another_metric_and_patience_does_not(name, monkeypatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    changes = {field: value for field, value in CHANGES.items() if (name, field) != ("viescore", "answers")}
    keys = {key(name), *(key(name, **{field: value}) for field, value in changes.items())}
    assert len(keys) == 1 + len(changes)
    assert {key(name, **{field: value}) for field, value in PATIENCE.items()} == {key(name)}


@pytest.mark.parametrize("url", ["http://LOCALHOST:8000/v1/", "HTTP://localhost:8000/v1"])
def test_one_address_in_two_spellings_is_one_metric(url) -> None:
    assert key("vqa", base_url=url) == key("vqa")
    assert key("vqa", base_url="http://a:80/v1") == key("vqa", base_url="http://a/v1")


@pytest.mark.parametrize("extra", [{"max_tokens": 9}, {"chat_template_kwargs": {"thinking": True}}, {"seed": None}])
def test_any_extra_field_makes_another_metric(extra) -> None:
    assert len({key(name, extra=given) for name in ("vqa", "viescore") for given in ({}, extra)}) == 4


@pytest.mark.parametrize("kind", ["jpeg", "smaller"])
@pytest.mark.parametrize("module", ["careedit.scoring.openai", "careedit_eval.metrics.writer"])
def test_pictures_sent_in_another_way_make_another_metric(kind, module, monkeypatch) -> None:
    """The identity comes from the builder of the request, so a change of the builder is a change of the identity."""
    make = EndpointAsker if module == "careedit.scoring.openai" else EndpointWriter
    before = dict(make(EndpointConfig(**ENDPOINT)).settings)
    save = Image.Image.save

    def otherwise(image, stream, kind_of):
        if kind == "jpeg":
            save(image, stream, "JPEG")
        else:
            save(image.resize((image.width // 2, image.height // 2)), stream, kind_of)

    monkeypatch.setattr(Image.Image, "save", otherwise)
    after = make(EndpointConfig(**ENDPOINT)).settings
    assert after["endpoint"] == before["endpoint"] and after["request"] != before["request"]


def test_an_identity_holds_no_secret(monkeypatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    spec = load_metric("vqa", endpoint=ENDPOINT | {"api_key_env": "JUDGE_KEY"}).spec
    assert "secret" not in spec.model_dump_json()
    assert spec.settings["endpoint"] == "http://localhost:8000/v1/chat/completions"


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Path:
    from careedit_tiny.plugin import judge_folder

    folder = tmp_path_factory.mktemp("judge") / "judge"
    shutil.copytree(judge_folder(), folder)
    return folder


def test_a_local_judge_is_its_weights_number_format_and_processor_whatever_it_is_called(judge) -> None:
    def settings(**options) -> tuple:
        return tuple(sorted(load_asker(judge, device="cpu", revision="mine", **options).settings.items()))

    found = [settings(), settings(dtype=torch.bfloat16)]
    assert settings() == found[0], "the same every time"
    for file in judge.glob("*processor_config.json"):
        data = json.loads(file.read_text())
        reading = data.get("image_processor", data)
        if "image_mean" in reading:
            reading["image_mean"] = [0.4, 0.4, 0.4]
            file.write_text(json.dumps(data))
    found.append(settings())
    template = judge / "chat_template.jinja"
    template.write_text(template.read_text().replace("user", "person") + " ")
    found.append(settings())
    assert len(set(found)) == len({dict(one)["request"] for one in found}) + 1 == 4
    assert len({dict(one)["weights"] for one in found}) == 3


def test_an_early_filters_judge_is_its_weights_and_not_its_folders_name(judge) -> None:
    arm = Arm(name="a", early_filter=EarlyFilter(candidates=2, preview_steps=1), judge=str(judge), steps=2)
    before = dict(resolve_arm(arm).identity)
    assert dict(resolve_arm(arm).identity) == before
    config = judge / "config.json"
    config.write_text(config.read_text() + "\n")
    assert dict(resolve_arm(arm).identity) != before


def test_the_words_of_a_judges_questions_change_only_with_their_version() -> None:
    # The version is part of a metric's identity, the words are not: raise the version with every change of them.
    words = {
        vqa.PROMPTS: [vqa.LEAD, vqa.LEAD_REFERENCE, vqa.FOLLOWED, vqa.PRESERVED, vqa.CLEAN],
        pairwise.PROMPTS: [vqa.LEAD, vqa.LEAD_REFERENCE, pairwise.BETTER],
        atomic.PROMPTS: [atomic.END, *(str(one) for one in vars(atomic).values() if isinstance(one, atomic.Atom))],
    }
    assert {version: json_digest(texts)[:12] for version, texts in words.items()} == {
        "vqa-3": "19cbd6354f03",
        "pairwise-2": "219d2503afee",
        "atomic-2": "3fb5a185621e",
    }
