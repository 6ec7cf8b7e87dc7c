"""The pages, in a real browser, by clicking; the pictures are made by a script."""

import base64
import io
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image, ImageChops, ImageOps

import fake_backend
from careedit.provenance.authority import write_authority
from careedit.records import FilterCandidate, FilterLook, FilterTrace
from careedit_deployments.http.pages import SAMPLE_KINDS
from careedit_deployments.state.records import ArmEvent, new_id
from fake_backend import FakeBackend
from served import Served, a_key, serve

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed")

REBOUND = "--host-resolver-rules=MAP rebound.example 127.0.0.1"
"""A name that its owner has pointed at this machine."""

ARMS = {
    "tiny": {"expert_set": "tiny", "weight": 3},
    "other": {"expert_set": "tiny"},
    "mirror": {"expert_set": "tiny", "shadow": True},
}


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", REBOUND])
        yield started
        started.close()


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend("tiny", "other", shadows=("mirror",), judge=False)


@pytest.fixture
def served(tmp_path: Path, backend: FakeBackend) -> Iterator[Served]:
    with serve(tmp_path, backend, arms=ARMS) as running:
        yield running


@pytest.fixture
def page(browser, served: Served):
    """The studio, ready; whatever it loads from elsewhere and every error in its console fails the test."""
    opened = browser.new_page()
    flaws: list[str] = []
    # The browser logs every answer of 4xx and 5xx; what the page makes of those is what is tested.
    opened.on(
        "console",
        lambda line: flaws.append(line.text) if line.type == "error" and "status of" not in line.text else None,
    )
    opened.on("pageerror", lambda error: flaws.append(str(error)))
    opened.on(
        "request",
        lambda asked: None if asked.url.startswith((served.url, "data:", "blob:")) else flaws.append(asked.url),
    )
    opened.goto(served.url)
    opened.locator("#expert option[value=erase]").wait_for(state="attached")
    yield opened
    opened.close()
    assert flaws == []


def picture_of(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")


def results(page) -> list[Image.Image]:
    page.locator("#results .go-on").last.wait_for()
    return [picture_of(image.get_attribute("src")) for image in page.locator("#results .stage img:not(.over)").all()]


def test_an_edit_is_made_by_clicking_and_explained(page, backend) -> None:
    samples = page.locator(".sample")
    assert samples.count() == len(SAMPLE_KINDS)
    samples.nth(1).click()
    wanted = picture_of(samples.nth(1).locator("img").get_attribute("src"))
    page.fill("#prompt", "remove the ball")
    page.click("#edit")
    (made,) = results(page)
    assert ImageChops.difference(made, ImageOps.invert(wanted)).getbbox() is None
    (call,) = [call for call in backend.calls if call.arm != "mirror"]
    assert (call.request.instruction, call.request.mask, call.partials) == ("remove the ball", None, 3)
    assert ImageChops.difference(call.request.image, wanted).getbbox() is None
    assert "erase: The instruction asks for what 'erase' is for." in page.inner_text("#reason")
    assert "90 %" in page.inner_text("#bars")
    assert "1 image in" in page.inner_text("#said")
    page.click("#trace-box summary")
    assert call.id in page.inner_text("#trace")


def test_the_routing_is_explained_without_an_edit(page, backend) -> None:
    page.fill("#prompt", "draw a star")
    page.click("#explain")
    page.locator("#said", has_text="would edit, in 4 evaluations at most").wait_for()
    assert page.inner_text("#reason").startswith("style:")
    assert backend.calls == []


def test_a_drawn_mask_says_where_the_picture_may_change(page, backend) -> None:
    page.click("#mask-toggle")
    box = page.locator("#mask").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.2)
    page.mouse.up()
    page.click("#edit")
    (made,) = results(page)
    source = backend.calls[0].request.image
    left, top, right, bottom = ImageChops.difference(made, source).getbbox()
    assert 0 < left < 0.25 * 64 and 0.35 * 64 < right < 0.5 * 64
    assert top > 0 and bottom < 0.35 * 64


def test_a_mask_can_be_painted_with_the_keyboard_alone(page, backend) -> None:
    page.focus("#mask-toggle")
    page.keyboard.press("Enter")
    page.focus("#mask")
    for key in (*["ArrowRight"] * 10, *["ArrowDown"] * 10, " "):
        page.keyboard.press(key)
    page.click("#edit")
    results(page)
    left, top, right, bottom = backend.calls[0].request.mask.getbbox()
    assert left < 20 < right and top < 20 < bottom and right - left < 16


def test_several_pictures_are_made_with_the_options_given(page, backend) -> None:
    page.click("#options summary")
    page.fill("#n", "2")
    page.fill("#steps", "7")
    page.fill("#seed", "11")
    page.select_option("#expert", "style")
    page.select_option("#model", "other")
    page.click("#edit")
    page.locator("#said", has_text="2 images in").wait_for()
    assert len(results(page)) == 2
    call = backend.calls[0]
    assert (call.arm, call.request.n, call.request.steps, call.request.seed) == ("other", 2, 7, 11)
    assert call.request.expert == "style"


def test_a_turn_goes_on_from_a_result_and_another_one_branches_off(page, backend) -> None:
    page.click("#edit")
    (first,) = results(page)
    page.click(".go-on")
    page.fill("#prompt", "add a star")
    page.click("#edit")
    page.locator("#turns .turn").nth(2).wait_for()
    page.locator("#turns .turn").nth(1).get_by_role("button", name="Go on").click()
    page.fill("#prompt", "add a circle")
    page.click("#edit")
    page.locator("#turns .turn").nth(3).wait_for()
    _, second, third = (call for call in backend.calls if call.arm != "mirror")
    for call in (second, third):
        assert ImageChops.difference(call.request.image, first).getbbox() is None
    assert [line.inner_text()[:21] for line in page.locator("#turns .words").all()][2:] == [
        "Turn 2: add a star st",
        "Turn 2: add a circle ",
    ]


def test_an_uploaded_picture_is_edited_and_a_file_that_is_none_is_refused(
    page, backend, draw_picture, tmp_path
) -> None:
    draw_picture((96, 80)).save(tmp_path / "mine.png")
    page.set_input_files("#file", tmp_path / "mine.png")
    page.locator("#source[width='96']").wait_for()
    page.fill("#prompt", "remove it")
    page.click("#edit")
    assert results(page)[0].size == (96, 80)
    (tmp_path / "text.png").write_text("no picture", "utf-8")
    page.set_input_files("#file", tmp_path / "text.png")
    page.locator("#said.bad", has_text="cannot read this file").wait_for()


def test_an_error_is_shown_as_the_servers_sentence(page, backend) -> None:
    backend.broken |= {"tiny", "other"}
    page.click("#edit")
    page.locator("#said.bad", has_text="No replica of").wait_for()
    assert page.is_enabled("#edit")


def test_stop_ends_the_edit_on_the_server(page, served, backend) -> None:
    backend.gate.clear()
    page.click("#edit")
    until = time.monotonic() + 10
    while not backend.calls:
        assert time.monotonic() < until, "the edit did not begin"
        time.sleep(0.01)
    page.click("#stop")
    page.locator("#said", has_text="Stopped.").wait_for()
    until = time.monotonic() + 10
    while served.recording.total("careedit_edits", outcome="cancelled") != 1:
        assert time.monotonic() < until, "the edit went on"
        time.sleep(0.01)


def test_candidates_of_an_early_filter_have_the_judges_marks_and_a_signed_result_says_so(
    browser, tmp_path, backend, monkeypatch
) -> None:
    tried = [
        FilterCandidate(seed=7 + i, steps=2, score=mark, preview_sha256="0" * 64) for i, mark in enumerate((0.41, 0.83))
    ]
    seen = FilterTrace(
        strategy="halving",
        preview_steps=2,
        candidates=tuple(tried),
        looks=(FilterLook(steps=2, alive=(0, 1)),),
        chosen=1,
        nfe=4,
        judge={},
        judge_seconds=0.1,
    )
    made = fake_backend.done

    def filtered(call, image):
        done = made(call, image)
        return done.model_copy(update={"trace": done.trace.model_copy(update={"filter": seen})})

    monkeypatch.setattr(fake_backend, "done", filtered)
    write_authority(tmp_path / "ca", "test", days=10)
    with serve(tmp_path, backend, arms=ARMS, credentials={"folder": str(tmp_path / "ca")}) as served:
        page = browser.new_page()
        page.goto(served.url)
        page.locator("#expert option[value=erase]").wait_for(state="attached")
        page.click("#edit")
        page.locator(".signed", has_text="the file is signed").wait_for()
        assert "judge 0.83" in page.inner_text(".candidates .chosen")
        page.get_by_role("button", name="Use the seed of candidate 1").click()
        assert page.input_value("#seed") == "7"
        page.close()


def test_a_rating_is_kept_for_the_arm(page, served) -> None:
    page.click("#edit")
    results(page)
    page.locator(".rate", has_text="Good").click()
    page.locator("#said", has_text="Thank you").wait_for()
    (kept,) = served.run(served.services.store.feedback.latest)
    assert kept.rating == 5


def draw(page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag over the mask, from and to these shares of its width and height."""
    page.locator("#mask").scroll_into_view_if_needed()
    box = page.locator("#mask").bounding_box()
    page.mouse.move(box["x"] + box["width"] * start[0], box["y"] + box["height"] * start[1])
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * end[0], box["y"] + box["height"] * end[1])
    page.mouse.up()


def test_a_mask_is_made_with_box_eraser_undo_and_invert_and_the_difference_is_where_it_allows(page, backend) -> None:
    page.keyboard.press("x")  # opens the mask with the box
    draw(page, (0.25, 0.25), (0.75, 0.5))
    page.click("[data-tool=eraser]")
    page.fill("#brush", "16")
    draw(page, (0.1, 0.375), (0.9, 0.375))
    page.click("#mask-undo")
    page.click("#mask-redo")
    page.click("#mask-undo")
    page.click("#mask-invert")
    page.click("#edit")
    results(page)
    mask = backend.calls[0].request.mask
    free = [mask.getpixel((x, y)) for x, y in ((32, 24), (18, 18), (46, 30), (10, 24), (32, 40), (32, 5))]
    assert [bool(pixel) for pixel in free] == [False] * 3 + [True] * 3
    page.click("#results [data-mode=difference]")
    page.locator("#results canvas[width='64']").wait_for()
    read = "c => [...c.getContext('2d').getImageData(%d, %d, 1, 1).data]"
    change = page.locator("#results canvas")
    assert change.evaluate(read % (32, 24)) == [0, 0, 0, 255]
    assert sum(change.evaluate(read % (10, 50))[:3]) > 0


def test_a_reload_loses_nothing_and_the_server_has_the_same_tree(page, served, backend) -> None:
    page.click("#edit")
    (first,) = results(page)
    page.click(".go-on")
    page.click("#mask-toggle")
    page.click("[data-tool=box]")
    draw(page, (0.25, 0.25), (0.75, 0.75))
    page.fill("#prompt", "add a star")
    page.locator("#form[data-kept=true]").wait_for()
    page.reload()
    page.locator("#expert option[value=erase]").wait_for(state="attached")
    assert page.input_value("#prompt") == "add a star"
    assert page.locator("#turns .turn").count() == 2
    page.click("#edit")
    results(page)
    second = [call for call in backend.calls if call.arm != "mirror"][1]
    assert ImageChops.difference(second.request.image, first).getbbox() is None
    assert second.request.mask.getbbox() == (16, 16, 48, 48)
    page.click("#undo")
    page.locator("#said", has_text="This is the source again").wait_for()
    page.fill("#prompt", "draw a circle")
    page.click("#edit")
    page.locator("#turns .turn").nth(3).wait_for()
    (session,) = page.request.get(f"{served.url}/v1/sessions").json()["data"]
    turns = page.request.get(f"{served.url}/v1/sessions/{session['id']}/turns").json()["data"]
    assert [(turn["prompt"], turn["parent"]) for turn in turns][1:] == [
        ("add a star", turns[0]["id"]),
        ("draw a circle", None),
    ]


def test_two_models_are_compared_blind_and_the_vote_counts(page, served) -> None:
    page.click("#blind-box summary")
    page.click("#blind")
    page.locator(".vote").first.wait_for()
    shown = page.inner_text("#results")
    assert "tiny" not in shown and "other" not in shown
    page.get_by_role("button", name="B is better").click()
    page.locator("#said", has_text="Thank you. A was").wait_for()
    (kept,) = served.run(served.services.store.feedback.latest)
    winner = served.run(lambda: served.services.store.edits.get(kept.winner, owner=kept.owner))
    assert f"B was {winner.arm}." in page.inner_text("#said")


def test_pictures_are_pasted_and_dropped_as_source_and_reference(page, backend, draw_picture) -> None:
    buffer = io.BytesIO()
    draw_picture((96, 80)).save(buffer, "PNG")
    send = """([selector, type, text]) => {
        const transfer = new DataTransfer();
        const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
        transfer.items.add(new File([bytes], "a.png", {type: "image/png"}));
        const options = {bubbles: true, cancelable: true, [type === "drop" ? "dataTransfer" : "clipboardData"]: transfer};
        const event = type === "drop" ? new DragEvent(type, options) : new ClipboardEvent(type, options);
        document.querySelector(selector).dispatchEvent(event);
    }"""
    text = base64.b64encode(buffer.getvalue()).decode()
    page.evaluate(send, ["body", "paste", text])
    page.locator("#source[width='96']").wait_for()
    page.evaluate(send, ["#reference-zone", "drop", text])
    page.locator("#references li").wait_for()
    page.evaluate(send, ["#reference-zone", "drop", text])
    page.locator("#said.bad", has_text="takes 1 reference.").wait_for()
    page.click("#edit")
    assert results(page)[0].size == (96, 80)
    assert [one.size for one in backend.calls[0].request.references] == [(96, 80)]


def test_a_preset_fills_in_the_form_and_every_control_has_a_name_on_a_narrow_screen(page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.fill("#prompt", "add a star")
    for part in ("options", "presets", "blind-box", "keys"):
        page.click(f"#{part} > summary")
    page.fill("#steps", "9")
    page.fill("#preset-name", "stars")
    page.click("#preset-save")
    page.fill("#prompt", "")
    page.fill("#steps", "")
    page.select_option("#preset", "")
    page.select_option("#preset", "stars")
    assert (page.input_value("#prompt"), page.input_value("#steps")) == ("add a star", "9")
    page.click("#mask-toggle")
    page.click("#edit")
    results(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    nameless = """() => [...document.querySelectorAll("input, select, textarea, button")].filter(one =>
        !(one.labels?.length || one.ariaLabel || one.textContent.trim() || one.querySelector("img[alt]"))).map(one => one.outerHTML)"""
    assert page.evaluate(nameless) == []


def test_the_status_shows_arms_experts_edits_and_cuts(page, served) -> None:
    page.click("#edit")
    results(page)
    event = ArmEvent(id=new_id("armevent"), arm="other", kind="cut", reason="It failed.", created=time.time())
    served.run(lambda: served.services.store.arms.add(event))
    page.get_by_role("link", name="Status").click()
    page.locator("#latest tr").first.wait_for()
    assert page.inner_text("#ready") == "Ready to edit"
    rows = {row.split("\t")[0]: row for row in page.inner_text("#arms").splitlines()}
    assert "100 %" in rows["tiny"] and "live" in rows["tiny"]
    assert "disabled: It failed." in rows["other"]
    assert "shadow" in rows["mirror"]
    assert "erase" in page.inner_text("#experts")
    assert "made" in page.inner_text("#latest")


def test_the_api_is_described_and_can_be_tried(page, served) -> None:
    page.goto(f"{served.url}/docs")
    page.locator("#swagger-ui .opblock-tag-section").first.wait_for()
    assert page.locator(".opblock-summary-path", has_text="/v1/images/edits").count() == 1
    page.locator(".opblock-summary", has_text="/readyz").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    page.locator(".live-responses-table", has_text='"ok"').wait_for()


def test_a_server_that_wants_a_key_gets_it_from_the_visitor(browser, tmp_path, backend) -> None:
    key, record = a_key("visitor")
    with serve(tmp_path, backend, keys=(record,), arms=ARMS, auth={"required": True}) as served:
        page = browser.new_page()
        page.goto(served.url)
        page.locator("#said.bad", has_text="needs an API key").wait_for()
        page.fill("#key", key)
        page.click("#edit")
        assert len(results(page)) == 1
        page.close()


def test_a_foreign_page_can_neither_write_nor_read(browser, served, tmp_path):
    (tmp_path / "evil.html").write_text("<h1>Free kittens</h1>")
    files = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=tmp_path))
    threading.Thread(target=files.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f"http://localhost:{files.server_port}/evil.html")
    answered: list[int] = []
    page.on("response", lambda response: answered.append(response.status))
    send = """async address => {
        const form = new FormData();
        form.set("prompt", "remove it");
        form.set("image", new Blob(["x"], {type: "image/png"}), "a.png");
        await fetch(address + "/v1/jobs", {method: "POST", body: form, mode: "no-cors"});
        return fetch(address + "/v1/jobs").then(answer => answer.text(), error => "unreadable");
    }"""
    assert page.evaluate(send, served.url) == "unreadable"
    assert answered[0] == 403
    files.shutdown()
    files.server_close()
    page.goto(f"http://rebound.example:{urlsplit(served.url).port}/v1/jobs")
    assert "foreign_page" in page.content()
    page.close()


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""
