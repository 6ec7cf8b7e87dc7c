"""Editing by a live service: what is sent, what is asked again, and what ends as an error; the service is scripted."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from careedit.errors import InputError
from careedit_eval.editors import EditFailed, EditWork, resolve_arm
from careedit_eval.editors.http import HttpEditor
from careedit_eval.suite import Arm

Answer = tuple[int, dict, dict[str, str]]


def picture(shade: int = 90) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


GOOD = {"data": [{"b64_json": picture()}], "careedit": {"traces": [{"nfe": 4, "filter": None}]}}


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, list[bytes]]]]:
    """`serve(*answers)`: an address and what was posted to it; GET answers `models`."""
    servers = []

    def start(*answers: Answer, models: dict | None = None):
        posted: list[bytes] = []
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def _answer(self, code: int, document: dict, headers: dict[str, str]) -> None:
                data = json.dumps(document).encode()
                self.send_response(code)
                for name, value in {**headers, "content-length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self._answer(200 if models is not None else 404, models or {}, {})

            def do_POST(self) -> None:
                posted.append(self.rfile.read(int(self.headers["content-length"])))
                self._answer(*(left.pop(0) if len(left) > 1 else left[0]))

            def log_message(self, *args) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/v1", posted

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def work(**changes) -> EditWork:
    source = Image.new("RGB", (8, 8), (10, 20, 30))
    fields = {"sample_id": "s", "source": source, "instruction": "make it red", "mask": None, "references": ()}
    return EditWork(**{**fields, "target": None, "seed": 7, **changes})


def arm(url: str, **options) -> Arm:
    return Arm(name="live", kind="http", url=url, **options)


def test_an_edit_is_sent_as_openai_has_it_with_careedits_own_fields(serve) -> None:
    url, posted = serve((200, GOOD, {}))
    mask = Image.new("L", (8, 8), 255)
    made = HttpEditor(arm(url, model="tiny", steps=4)).edit(work(mask=mask, references=(mask.convert("RGB"),)))
    assert made.image.getpixel((0, 0)) == (90, 90, 90)
    assert (made.nfe, made.judge_calls) == (4, 0) and made.seconds is not None and made.seconds > 0
    for part in (b'name="prompt"', b"make it red", b'name="seed"', b"\r\n7\r\n", b'name="steps"', b'name="model"'):
        assert part in posted[0]
    assert posted[0].count(b'name="image[]"') == 2 and posted[0].count(b'name="mask"') == 1


def test_a_plain_openai_service_gets_no_field_that_it_does_not_know(serve) -> None:
    url, posted = serve((200, {"data": [{"b64_json": picture()}]}, {}))
    made = HttpEditor(arm(url, extensions=False, steps=4)).edit(work())
    assert b'name="seed"' not in posted[0] and b'name="steps"' not in posted[0]
    assert (made.nfe, made.trace) == (None, None)


def test_an_overloaded_service_is_asked_again_when_it_says(serve) -> None:
    busy: Answer = (429, {"error": {"message": "full"}}, {"retry-after": "3"})
    url, posted = serve(busy, (503, {}, {}), (200, GOOD, {}))
    waits: list[float] = []
    HttpEditor(arm(url), sleep=waits.append).edit(work())
    assert len(posted) == 3 and waits[0] == 3.0 and 0.5 <= waits[1] <= 1.0


def test_a_service_that_stays_busy_is_given_up_in_a_sentence(serve) -> None:
    url, posted = serve((429, {"error": {"message": "full"}}, {}))
    with pytest.raises(EditFailed, match=r"did not edit in 3 attempts \(429: full\)"):
        HttpEditor(arm(url, attempts=3), sleep=lambda _: None).edit(work())
    assert len(posted) == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((400, {"error": {"message": "no such model"}}, {}), r"refused the edit \(400: no such model\)"),
        ((200, {"data": []}, {}), "holds no picture"),
        ((200, {"data": [{"b64_json": "!!"}]}, {}), "holds no picture"),
    ],
)
def test_what_will_not_get_better_is_asked_once(serve, answer: Answer, words: str) -> None:
    url, posted = serve(answer)
    with pytest.raises(EditFailed, match=words):
        HttpEditor(arm(url), sleep=lambda _: None).edit(work())
    assert len(posted) == 1


def test_another_version_of_a_service_is_another_editor(serve) -> None:
    def identity(sha: str) -> object:
        models = {"data": [{"id": "tiny", "created": 1, "careedit": {"expert_set_sha256": sha}}]}
        return resolve_arm(arm(serve((200, GOOD, {}), models=models)[0])).identity

    assert identity("aa") == identity("aa") != identity("bb")


@pytest.mark.parametrize(
    ("models", "options", "words"),
    [
        ({"data": [{"id": "x"}]}, {"model": "y"}, "has no model 'y'; it has x"),
        ({"data": [{"id": "x"}, {"id": "z"}]}, {}, "has several models"),
        (None, {"api_key_env": "CAREEDIT_TEST_NO_SUCH_KEY"}, "is not set"),
    ],
)
def test_a_service_that_cannot_be_meant_is_refused_before_the_run(serve, models, options, words) -> None:
    url, _ = serve((200, GOOD, {}), models=models)
    with pytest.raises(InputError, match=words):
        resolve_arm(arm(url, **options))


def test_a_service_that_is_not_there_is_told_before_the_run() -> None:
    with pytest.raises(InputError, match="does not answer"):
        resolve_arm(arm("http://127.0.0.1:9/v1", timeout=2))
