"""`param` of an error answer: the request field that is wrong, whatever the sentence says."""

import asyncio
import base64
import copy as copy_module
import pickle

import cloudpickle
import pytest
from PIL import Image
from ray.exceptions import RayTaskError

from careedit.errors import ImageError, InputError, MaskError, UnknownExpertError
from careedit.records import MAX_SEED, EarlyFilter, EditRequest, RoutingDecision
from careedit.routing import FixedRouter
from careedit.selection.plan import make_plan
from careedit_deployments.cluster.fleet import ArmFleet, Fleet
from careedit_deployments.config import Arm, ServeConfig
from careedit_deployments.edits.assignment import choose_arm
from careedit_deployments.edits.backend import EditOrder
from careedit_deployments.edits.edit_service import EditService, check_cost
from careedit_deployments.errors import FieldError, NotFoundError, OverloadedError, TooExpensiveError
from careedit_deployments.http.jobs import JobFields
from careedit_deployments.http.schema import UNSUPPORTED, EditBody
from careedit_deployments.http.sessions import SessionBody, TurnFields
from careedit_deployments.listening import Limits
from careedit_deployments.problems import problem_of
from careedit_deployments.telemetry.metrics import Metrics, Recording
from fake_backend import FakeBackend, arm_info, mask_file, picture_file

PNG = picture_file()
PICTURE = Image.new("RGB", (16, 16), (10, 20, 30))
REF = {"image_url": base64.b64encode(PNG).decode()}
SMALL, LARGE = ({"image_url": base64.b64encode(picture_file(size)).decode()} for size in ((8, 8), (300, 300)))
EDITS, JOBS, SESSIONS, SCORES, FEEDBACK = ("/v1/images/edits", "/v1/jobs", "/v1/sessions", "/v1/scores", "/v1/feedback")

FORMS = {
    "prompt": ["", "  ", "x" * 2001],
    "model": ["gpt-image-2", "x" * 600],
    "n": ["0", "17", "5", "many"],
    "size": ["large", "900x900"],
    "quality": ["max"],
    "output_format": ["gif"],
    "output_compression": ["101", "50"],
    "stream": ["perhaps"],
    "partial_images": ["4", "2"],
    "candidate_images": ["perhaps", "true"],
    "background": ["transparent"],
    "response_format": ["file"],
    "input_fidelity": ["most"],
    "moderation": ["none"],
    "user": ["a\nb"],
    "safety_identifier": ["a\nb"],
    "seed": ["-1", str(2**63)],
    "steps": ["0", "51", "201"],
    "guidance": ["nan", "1001", "3.5"],
    "expert": ["no-such-expert", '{"erase": 2}', '{"erase": 0.5}', '{"erase": 0.5, "no-such-expert": 0.5}', "{"],
    "top_k": ["0", "65"],
    "refine_mask": ["true", "perhaps"],
    "early_filter": [
        "roulette",
        "halving",
        '{"candidates": 17}',
        '{"preview_steps": 0}',
        '{"early_exit": 2}',
        '{"timeout": 0}',
        '{"no_such_field": 1}',
    ],
    "session": ["a\nb"],
    "style": ["vivid"],
    "image_url": ["https://example.com/cat.png"],
    "instruction": ["x"],
    "references": ["x"],
    "candidates": ["2"],
}
"""A form's text fields and values that are wrong; `param` is the field."""


def param_of(answer):
    """The param of an answer that refuses a request."""
    error = answer.json()["error"]
    assert answer.status_code == (404 if error["code"] == "model_not_found" else 400), answer.text
    return error["param"]


def test_a_bad_field_of_a_form_is_the_param(client, painter):
    def post(field, value):
        return client.post(EDITS, files={"image": ("a.png", PNG)}, data={"prompt": "remove it", field: value})

    cases = [(field, value) for field, values in FORMS.items() for value in values]
    answered = [(field, value, param_of(post(field, value))) for field, value in cases]
    assert answered == [(field, value, field) for field, value in cases]
    assert param_of(client.post(EDITS, files={"image": ("a.png", PNG)})) == "prompt"
    assert painter.calls == []


def test_a_bad_file_of_a_form_is_the_param(client):
    cases = [
        ({"image": ("a.png", b"nothing")}, "image"),
        ({"image[]": ("a.png", b"nothing")}, "image"),
        ({"image": (None, "")}, "image"),
        ([("image[]", ("a.png", PNG)), ("image[]", ("b.png", b"nothing"))], "image[1]"),
        ([("image[]", ("a.png", PNG))] * 3, "image"),
        ({"image": ("a.png", PNG), "mask": ("m.png", b"nothing")}, "mask"),
        ({"image": ("a.png", PNG), "mask": ("m.png", PNG)}, "mask"),
        ({"image": ("a.png", PNG), "mask": ("m.png", mask_file((8, 8)))}, "mask"),
        ([("image", ("a.png", PNG)), *[("mask", ("m.png", mask_file()))] * 2], "mask"),
        ({"image": ("a.png", PNG), "seed": ("s.txt", b"1")}, "seed"),
    ]
    answered = [param_of(client.post(EDITS, files=files, data={"prompt": "remove it"})) for files, _ in cases]
    assert answered == [param for _, param in cases]


JSON = [
    ({"images": []}, "images"),
    ({"images": [{}]}, "images[0].image_url"),
    ({"images": [{"image_url": "https://example.com/cat.png"}]}, "images[0].image_url"),
    ({"images": [{"file_id": "file-1"}]}, "images[0].file_id"),
    ({"images": [{"image_url": "!!"}]}, "images[0].image_url"),
    ({"images": [{"image_url": "data:image/png,abc"}]}, "images[0].image_url"),
    ({"images": [{"url": "x"}]}, "images[0].url"),
    ({"images": [{"image_url": "AAAA"}]}, "image"),
    ({"images": [REF, {"image_url": "AAAA"}]}, "image[1]"),
    ({"images": [REF] * 3}, "images"),
    ({"images": [REF] * 17}, "images"),
    ({"image": "x"}, "image"),
    ({"mask": {"image_url": "AAAA"}}, "mask"),
    ({"mask": {"file_id": "x"}}, "mask.file_id"),
    ({"mask": {"url": "x"}}, "mask.url"),
    ({"mask": "x"}, "mask"),
    ({"n": "1"}, "n"),
    ({"n": 5}, "n"),
    ({"seed": 2**63 - 1, "n": 2}, "seed"),
    ({"expert": {"erase": "much"}}, "expert"),
    ({"expert": 3}, "expert"),
    ({"early_filter": {"candidates": 0}}, "early_filter"),
    ({"early_filter": 3}, "early_filter"),
    ({"stream": True, "response_format": "url"}, "response_format"),
    ({"session": "x", "response_format": "url", "images": []}, "response_format"),
    ({"prompt": 3}, "prompt"),
    ({"whatever": 1}, "whatever"),
]
"""Fields of a JSON body of an edit, and `param`."""


def test_a_bad_field_of_a_json_body_is_the_param(client):
    body = {"prompt": "x", "images": [REF]}
    answered = [(fields, param_of(client.post(EDITS, json={**body, **fields}))) for fields, _ in JSON]
    assert answered == JSON


PAIR = {"source": REF, "edited": REF, "instruction": "x"}
OTHERS = [
    (JOBS, {"webhook": "https://example.com/hook"}, "webhook"),
    (JOBS, {"webhook": ""}, "webhook"),
    (JOBS, {"session": "x", "images": []}, "session"),
    (JOBS, {"steps": 51}, "steps"),
    (JOBS, {"response_format": "url"}, "response_format"),
    ("/v1/routes", {"guidance": 3.5}, "guidance"),
    ("/v1/routes", {"expert": "no-such-expert"}, "expert"),
]
"""Route, fields and `param`; the route takes an edit's body."""
BODIES = [
    (SESSIONS, {}, "image"),
    (SESSIONS, {"image": {"image_url": "AAAA"}}, "image"),
    (SESSIONS, {"image": {"image_url": "!!"}}, "image.image_url"),
    (SESSIONS, {"image": REF, "model": ""}, "model"),
    (SESSIONS, {"image": REF, "user": ""}, "user"),
    (SCORES, {}, "pairs"),
    (SCORES, {"pairs": []}, "pairs"),
    (SCORES, {"pairs": [{**PAIR, "source": {"image_url": "AAAA"}}]}, "pairs[0].source"),
    (SCORES, {"pairs": [PAIR, {**PAIR, "edited": {"image_url": "!!"}}]}, "pairs[1].edited.image_url"),
    (SCORES, {"pairs": [{**PAIR, "reference": {"image_url": "AAAA"}}]}, "pairs[0].reference"),
    (SCORES, {"pairs": [{**PAIR, "instruction": ""}]}, "pairs[0].instruction"),
    (SCORES, {"pairs": [{"source": REF, "instruction": "x"}]}, "pairs[0].edited"),
    (SCORES, {"pairs": [PAIR, {**PAIR, "edited": SMALL}]}, "pairs[1].edited"),
    (SCORES, {"pairs": [PAIR, *[{**PAIR, "source": LARGE, "edited": LARGE}] * 15]}, "pairs[1].source"),
    (FEEDBACK, {}, "edit"),
    (FEEDBACK, {"edit": "a", "rating": 6}, "rating"),
    (FEEDBACK, {"edits": ["a"], "winner": "a"}, "edits"),
    (FEEDBACK, {"edits": ["a", "a"], "winner": "a"}, "edits"),
    (FEEDBACK, {"edits": ["a", "b"], "winner": "c"}, "winner"),
    (FEEDBACK, {"edits": ["a", "b"]}, "winner"),
    (FEEDBACK, {"edit": "a", "rating": 5, "comment": ""}, "comment"),
]
"""Route, whole body and `param`."""


def test_a_bad_field_of_another_routes_body_is_the_param(client):
    edits = [(path, {"prompt": "x", "images": [REF], **fields}, param) for path, fields, param in OTHERS]
    answered = [(path, body, param_of(client.post(path, json=body))) for path, body, _ in edits + BODIES]
    assert answered == edits + BODIES


def test_a_bad_field_of_a_query_or_a_header_is_the_param(client):
    assert param_of(client.get("/v1/jobs?limit=0")) == "limit"
    assert param_of(client.get("/v1/sessions?limit=101")) == "limit"
    assert param_of(client.get("/v1/arms?hours=0")) == "hours"
    keyed = client.post(JOBS, json={"prompt": "x", "images": [REF]}, headers={"Idempotency-Key": "a b"})
    assert param_of(keyed) == "Idempotency-Key"


def test_a_bad_field_of_a_turn_is_the_param(client):
    session = client.post(SESSIONS, files={"image": ("a.png", PNG)}).json()["id"]
    cases = [({"n": 2}, "n"), ({"stream": True}, "stream"), ({"turn": ""}, "turn"), ({"turn": 3}, "turn")]
    turns = f"{SESSIONS}/{session}/turns"
    assert [(fields, param_of(client.post(turns, json={"prompt": "x", **fields}))) for fields, _ in cases] == cases


def test_every_field_of_a_body_is_tried():
    tried = set(FORMS) | {name for fields, _ in JSON for name in fields}
    assert set(EditBody.model_fields) - tried == set()
    tried |= {name for _, fields, _ in OTHERS for name in fields} | {name for _, body, _ in BODIES for name in body}
    others = {name for model in (JobFields, SessionBody, TurnFields) for name in model.model_fields}
    assert others - tried == {"turn"}  # which a test of its own tries
    assert {"style", "image", "image_url"} <= set(UNSUPPORTED) & tried


JUDGE = {"backend": "transformers", "model": "some"}


def start(limits=None, arm=None, **request):
    """Let the edit service take an edit; an arm that has room for everything, unless `arm` says otherwise."""
    config = ServeConfig(arms={"tiny": {"expert_set": "tiny"}}, scorer=JUDGE, limits=limits or {})
    painter = FakeBackend()
    painter.arms = {"tiny": arm_info(**{"takes_guidance": True, **(arm or {})})}
    service = EditService(config, painter, Metrics(Recording()), log=None)
    asyncio.run(service.start(EditOrder(request=EditRequest(image=PICTURE, instruction="x", **request))))


FLEET = Fleet(
    arms={"a": ArmFleet(info=arm_info("a"), needs_pixels=False, own=("erase",), shared=False, max_in_flight={})}
)
REQUEST = {"image": PICTURE, "instruction": "x"}
RAISED = [
    (lambda: EditRequest(**{**REQUEST, "instruction": " "}), "prompt"),
    (lambda: EditRequest(**{**REQUEST, "instruction": "\udc80"}), "prompt"),
    (lambda: EditRequest(**{**REQUEST, "instruction": "x" * 2001}), "prompt"),
    (lambda: EditRequest(**{**REQUEST, "image": b"nothing"}), "image"),
    (lambda: EditRequest(**REQUEST, references=3), "image"),
    (lambda: EditRequest(**REQUEST, references=[PICTURE] * 16), "image"),
    (lambda: EditRequest(**REQUEST, mask=b"nothing"), "image"),
    (lambda: EditRequest(**REQUEST, mask=Image.new("L", (8, 8), 255)), "mask"),
    (lambda: EditRequest(**REQUEST, mask=Image.new("L", (16, 16), 0)), "mask"),
    (lambda: EditRequest(**REQUEST, seed=-1), "seed"),
    (lambda: EditRequest(**REQUEST, steps=0), "steps"),
    (lambda: EditRequest(**REQUEST, n=17), "n"),
    (lambda: EditRequest(**REQUEST, top_k=0), "top_k"),
    (lambda: EditRequest(**REQUEST, guidance=-1), "guidance"),
    (lambda: EditRequest(**REQUEST, expert={"a": 2}), "expert"),
    (lambda: EarlyFilter(preview_steps=0), "early_filter"),
    (lambda: FixedRouter("nobody", ()), "expert"),
    (lambda: make_plan(EarlyFilter(preview_steps=9), 4), "early_filter"),
    (lambda: check_cost(Limits(images=2), n=3, steps=1, early_filter=None, rows=1), "n"),
    (lambda: check_cost(Limits(steps=2), n=1, steps=3, early_filter=None, rows=1), "steps"),
    (lambda: start(seed=MAX_SEED, n=2), "seed"),
    (lambda: start(guidance=1.0, arm={"takes_guidance": False}), "guidance"),
    (lambda: start(early_filter=EarlyFilter(preview_steps=9), steps=4), "early_filter"),
    (lambda: start(references=[PICTURE], arm={"references": 0}), "image"),
    (lambda: start(expert={"erase": 0.5, "nobody": 0.5}), "expert"),
    (lambda: EditRequest(**REQUEST, seed="soon"), "seed"),
    (lambda: EditRequest(image=PICTURE), "prompt"),
    (lambda: EditRequest(**REQUEST, expert=3), "expert"),
    (lambda: EditRequest(**REQUEST, refine_mask=True), "refine_mask"),
    (lambda: EditRequest(**REQUEST, colour="red"), "colour"),
    (lambda: EarlyFilter(timeout=0), "early_filter"),
    (lambda: choose_arm({"a": Arm(expert_set="tiny")}, {}, "b", "salt", "user"), "model"),
    (lambda: FLEET.arm("b"), "model"),
    (lambda: FLEET.deployment_for("a", RoutingDecision(weights={"nobody": 1}, router="r", reason="r")), "expert"),
    (lambda: FLEET.deployment_for("a", RoutingDecision(weights={"base": 1}, router="r", reason="r")), "expert"),
    (lambda: check_cost(Limits(evaluations=2), n=3, steps=3, early_filter=None, rows=1), None),
]
"""What the library and the edit service refuse, and `param`."""


@pytest.mark.parametrize(("raises", "param"), RAISED)
def test_what_the_library_refuses_names_the_field_by_the_apis_name(raises, param):
    with pytest.raises((InputError, TooExpensiveError, NotFoundError)) as refused:
        raises()
    assert problem_of(refused.value).param == param


KINDS = [
    (InputError("Sesquipedalian words, no field's name.", field="guidance"), "guidance"),
    (InputError("Seed, steps and mask are fine.", field="instruction"), "prompt"),
    (InputError("The seed is not the problem."), None),
    (InputError("Another.", field="references"), "image"),
    (ImageError("Guidance?"), "image"),
    (ImageError("The second one is broken.", field="references"), "image"),
    (MaskError("Steps!"), "mask"),
    (UnknownExpertError("n?"), "expert"),
    (TooExpensiveError("Seed.", field="steps"), "steps"),
    (NotFoundError("Nothing of that name.", field="model"), "model"),
    (NotFoundError("There is no model of a session."), None),
    (FieldError("Words.", "instruction", "unknown_parameter"), "instruction"),
]
"""Errors whose words mislead, and `param`."""


@pytest.mark.parametrize(("error", "param"), KINDS)
def test_the_param_comes_from_the_field_whatever_the_sentence_says(error, param):
    assert problem_of(error).param == param


@pytest.mark.parametrize("module", [pickle, cloudpickle])
@pytest.mark.parametrize("error", [*(error for error, _ in KINDS), OverloadedError("Full.", 7.0)])
def test_an_error_keeps_its_field_across_processes(module, error):
    for copy in (module.loads(module.dumps(error)), copy_module.copy(error)):
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
        assert problem_of(copy) == problem_of(error)


def test_an_error_keeps_its_field_when_it_has_a_cause():
    def raise_from():
        raise InputError("Unusual words.", field="seed") from ValueError("The steps are wrong.")

    with pytest.raises(InputError) as caught:
        raise_from()
    assert pickle.loads(pickle.dumps(caught.value)).field == "seed"


@pytest.mark.parametrize(("error", "param"), KINDS)
def test_an_error_keeps_its_field_in_rays_wrapper(error, param):
    wrapped = cloudpickle.loads(cloudpickle.dumps(RayTaskError("edit", "Traceback ...", error)))
    dual = wrapped.as_instanceof_cause()
    assert isinstance(dual, type(error))
    for seen in (wrapped.cause, dual, cloudpickle.loads(cloudpickle.dumps(dual))):
        assert problem_of(seen).param == param
