"""What the studio does in addition to a plain edit: masks, history, reload, blind votes, presets; in a real browser."""

import base64
import io

import pytest
from PIL import ImageChops

import fake_backend
from browsing import ARMS, CHROMIUM, results
from careedit.provenance.authority import write_authority
from careedit.records import FilterCandidate, FilterLook, FilterTrace
from served import serve

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed")


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
    judge = {"backend": "transformers", "model": "some"}
    with serve(tmp_path, backend, arms=ARMS, scorer=judge, credentials={"folder": str(tmp_path / "ca")}) as served:
        page = browser.new_page()
        page.goto(served.url)
        page.locator("#expert option[value=erase]").wait_for(state="attached")
        page.evaluate("document.getElementById('options').open = true")
        page.select_option("#filter", "halving")
        page.click("#edit")
        page.locator(".signed", has_text="the file is signed").wait_for()
        assert "judge 0.83" in page.inner_text(".candidates .chosen")
        shown = page.locator(".candidates img")
        assert [one.get_attribute("alt") for one in shown.all()] == [f"Candidate {i} after 2 steps" for i in (1, 2)]
        assert page.evaluate("[...document.querySelectorAll('.candidates img')].every(one => one.naturalWidth > 0)")
        page.get_by_role("button", name="Use the seed of candidate 1").click()
        assert page.input_value("#seed") == "7"
        page.close()
