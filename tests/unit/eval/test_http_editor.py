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
from careedit_eval.editors.answered import AnsweredPictures
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

    def start(*answers: Answer, models: dict | None = None, files: bool = True, got: list | None = None):
        posted: list[bytes] = []
        got = [] if got is None else got
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def _answer(self, code: int, document: dict, headers: dict[str, str]) -> None:
                self._send(code, json.dumps(document).encode(), headers)

            def _send(self, code: int, data: bytes, headers: dict[str, str]) -> None:
                self.send_response(code)
                for name, value in {**headers, "content-length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                if self.path.startswith("/files/"):
                    got.append((self.path, self.headers["authorization"]))
                    return self._send(200 if files else 404, base64.b64decode(picture()) if files else b"", {})
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


def test_pauses_double_with_a_random_part_and_end_at_a_minute(serve) -> None:
    url, _ = serve(*[(500, {}, {})] * 9)
    waits: list[float] = []
    with pytest.raises(EditFailed, match="in 9 attempts"):
        HttpEditor(arm(url, attempts=9), sleep=waits.append).edit(work())
    assert len(waits) == 8
    assert all(
        longest / 2 <= wait <= longest for wait, longest in zip(waits, (0.5, 1, 2, 4, 8, 16, 32, 60), strict=True)
    )


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


@pytest.mark.parametrize("form", ["same origin", "path", "other name of this machine", "data", "folded"])
def test_a_picture_behind_an_address_is_read(serve, monkeypatch, form: str) -> None:
    monkeypatch.setenv("CAREEDIT_TEST_KEY", "secret")
    got: list[tuple[str, str | None]] = []
    files, _ = serve((200, {}, {}), got=got)
    answer: dict = {"data": [{"b64_json": None, "url": files.replace("/v1", "/files/a.png")}]}
    url, _ = serve((200, answer, {}), got=got)
    answer["data"][0] |= {
        "same origin": {"url": url.replace("/v1", "/files/a.png")},
        "path": {"url": "/files/a.png"},
        "other name of this machine": {"url": files.replace("/v1", "/files/a.png").replace("127.0.0.1", "localhost")},
        "data": {"url": f"data:image/png;base64,{picture()}"},
        "folded": {"b64_json": picture()[:20] + "\n" + picture()[20:]},
    }[form]
    made = HttpEditor(arm(url, api_key_env="CAREEDIT_TEST_KEY")).edit(work())
    assert made.image.getpixel((0, 0)) == (90, 90, 90)
    keys = {"same origin": ["Bearer secret"], "path": ["Bearer secret"], "other name of this machine": [None]}
    assert [key for _, key in got] == keys.get(form, []), "the key goes to the service's own origin only"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://10.1.2.3/a.png", r"host '10.1.2.3' is not on the public internet; add it to picture_hosts of the set"),
        ("http://169.254.169.254/latest", "not on the public internet"),
        ("file:///etc/passwd", "not an http address"),
        ("http://me:pw@example.org/a.png", "holds a user name"),
        ("http://[/a.png", "not an http address"),
        ("/files/gone.png", r"edited, but its picture could not be read: .* was answered with 404"),
        ("data:image/png,abc", "is not base64"),
    ],
)
def test_an_address_that_may_not_be_read_is_that_rows_error(serve, address: str, words: str) -> None:
    url, posted = serve((200, {"data": [{"url": address}]}, {}), files=False)
    with pytest.raises(EditFailed, match=words):
        HttpEditor(arm(url), sleep=lambda _: None).edit(work())
    assert len(posted) == 1


def test_a_private_host_that_the_set_lists_is_read(serve) -> None:
    private = arm("http://service.example/v1", picture_hosts=("127.0.0.1",))
    files, _ = serve((200, {}, {}))
    data, seconds = AnsweredPictures(private, {}, lambda _: None).read(
        {"data": [{"url": files.replace("/v1", "/files/a.png")}]}
    )
    assert data == base64.b64decode(picture()) and seconds > 0
    with pytest.raises(InputError, match="picture_hosts is only for the kind http"):
        Arm(name="x", picture_hosts=("a",))


def test_a_file_that_is_too_large_is_that_rows_error(serve) -> None:
    url, _ = serve((200, {}, {}))
    pictures = AnsweredPictures(arm(url), {}, lambda _: None, max_bytes=10)
    with pytest.raises(EditFailed, match="is larger than"):
        pictures.read({"data": [{"url": "/files/a.png"}]})
