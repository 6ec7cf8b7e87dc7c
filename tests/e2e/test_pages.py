"""The pages, in a real browser, by clicking; the pictures are made by a script."""

import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from PIL import ImageChops, ImageOps

from browsing import ARMS, CHROMIUM, picture_of, results
from careedit_deployments.http.pages import SAMPLE_KINDS
from careedit_deployments.state.records import ArmEvent, new_id
from served import a_key, serve

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed")


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


def test_a_rating_is_kept_for_the_arm(page, served) -> None:
    page.click("#edit")
    results(page)
    page.locator(".rate", has_text="Good").click()
    page.locator("#said", has_text="Thank you").wait_for()
    (kept,) = served.run(served.services.store.feedback.latest)
    assert kept.rating == 5


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
