"""The page in a browser: Chromium by Playwright. Skipped where either is missing; slow.

`DEEPRNN_CHROMIUM` names the browser (by default the `chromium` on PATH), `DEEPRNN_AXE` the file `axe.min.js` of the npm
package axe-core, without which accessibility is not checked, and `DEEPRNN_SHOTS` a folder for pictures of the page.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="pip install .[serve]")
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

CHROMIUM = os.environ.get("DEEPRNN_CHROMIUM") or shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: DEEPRNN_CHROMIUM")]
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        flags = [*QUIET.split(), "--disable-component-update", "--disable-sync"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=flags, timeout=120_000)
        yield opened
        opened.close()


@pytest.fixture
def page(browser, service):
    """The page; at the end of the test its console must be empty, and every request have gone to the service."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], locale="en-GB")
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    printed, elsewhere = [], []
    opened.expected = "-"
    opened.home = f"http://127.0.0.1:{service.port}/"
    opened.on("console", lambda message: printed.append(message.text))
    opened.on("pageerror", lambda error: printed.append(str(error)))
    opened.on("request", lambda asked: asked.url.startswith(opened.home) or elsewhere.append(asked.url))
    opened.goto(opened.home)
    opened.wait_for_selector("#model option", state="attached")
    yield opened
    context.close()
    # The browser itself logs an answer that is an error.
    assert [line for line in printed if opened.expected not in line] == [] and elsewhere == []


def shot(page, name):
    if "DEEPRNN_SHOTS" in os.environ:
        page.screenshot(path=str(Path(os.environ["DEEPRNN_SHOTS"]) / f"{name}.png"))


def until(page, word):
    """Wait for what the page reports; a condition in JavaScript would be refused by the page's policy."""
    page.locator("#status", has_text=word).wait_for(timeout=60_000)


def written(page, text=0):
    return page.locator("#texts .text").nth(text).inner_text()


def write(page, prefix="over the hills", length="60", **settings):
    page.fill("#prefix", prefix)
    for name, value in {"length": length, **settings}.items():
        if name == "seed":
            page.fill("#seed", value)
        else:
            page.locator(f"#{name}").evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')) }", value)
    page.click("#start")
    until(page, "Done")


def test_type_and_watch(page, service):
    write(page, seed="3")
    expected = service.post("/v1/generate", {"prefix": "over the hills", "length": 60, "seed": 3, "temperature": 0.8})
    assert page.locator("#texts .text").first.text_content() == expected[1]["texts"][0]
    assert page.inner_text("#status") == "Done: 60 symbols, seed 3."


def test_drag_a_slider(page):
    box = page.locator("#temperature").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert page.inner_text("output[for=temperature]") == "2.00"


def test_stop(page, service):
    page.evaluate("document.querySelector('#length').max = 50000")
    page.locator("#length").evaluate("e => { e.value = 50000 }")
    page.click("#start")
    page.wait_for_selector("#texts .text i")
    page.click("#stop")
    until(page, "Stopped")
    assert service.idle(within=2) and page.is_disabled("#stop")


def test_copy_and_the_link_that_gives_the_same_text(page, browser):
    write(page, seed="", samples="2")
    page.click("#copy")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("over the hills") and copied.count("over the hills") >= 2
    page.click("#link")
    link = page.evaluate("navigator.clipboard.readText()")
    assert re.search(r"[#&]seed=\d+", link) and "samples=2" in link
    other = browser.new_context().new_page()
    other.goto(link)
    until(other, "Done")
    assert "\n\n".join(other.locator("#texts .text").all_text_contents()) == copied
    other.context.close()


def test_each_symbol_has_its_probability_by_mouse_and_by_keyboard(page):
    write(page, seed="1")
    page.locator("#texts i").nth(5).hover()
    assert page.locator("#inspector li").count() == 5 and "%" in page.inner_text("#inspector p")
    page.mouse.move(5, 5)
    page.focus("#texts .text")
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    third = page.locator("#texts i").nth(2)
    assert "at" in third.get_attribute("class") and page.locator("#inspector li").count() == 5
    page.keyboard.press("Escape")
    assert page.is_hidden("#inspector")


def test_two_models_side_by_side_with_their_states(page):
    page.check("#compare")
    page.check("#states")
    write(page, seed="1")
    assert page.locator("#texts h2").all_inner_texts() == ["Text 1, ducks", "Text 1, geese"]
    assert written(page, 0) != written(page, 1)
    assert page.locator("#texts canvas").count() == 4
    painted = page.locator("#texts canvas").first.evaluate(
        "e => e.getContext('2d').getImageData(0, 0, 60, e.height).data.filter((_, i) => i % 4 === 3).some(v => v > 20)"
    )
    assert painted


def test_a_score(page):
    page.click("#tab-score")
    page.fill("#scored", "the hills? far")
    page.click("#scoring .main")
    page.wait_for_selector("#scores ol button")
    assert page.locator("#scores .text").inner_text() == "the hills? far"
    assert [text.strip() for text in page.locator("#scores dd").all_inner_texts()][2] == "1"
    page.locator("#scores ol button").first.click()
    assert page.locator("#scores i.at").count() == 1 and page.is_visible("#inspector")


def test_the_other_language(page):
    page.click("#language")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.inner_text("#start") == "写作" and page.inner_text("#language") == "English"
    page.reload()
    page.wait_for_selector("#model option", state="attached")
    assert page.inner_text("#start") == "写作"


def test_everything_by_keyboard(page):
    reached = []
    for _ in range(18):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    for name in ("tab-write", "language", "prefix", "temperature", "length", "samples", "repetition_penalty", "seed"):
        assert name in reached
    page.focus("#prefix")
    page.keyboard.type("over")
    page.keyboard.press("Control+Enter")
    until(page, "Done")
    page.focus("#tab-write")
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#score") and page.is_hidden("#write")


def test_text_is_text(page, service):
    """What a model or a user writes is no markup: here the prefix, refused with a message that holds it."""
    page.fill("#prefix", "<img src=x onerror=alert(1)>")
    with page.expect_response("**/v1/generate") as answer:
        page.click("#start")
    assert answer.value.status == 422
    page.wait_for_selector("#status.bad")
    assert page.locator("img").count() == 0 and "'<'" in page.inner_text("#status")
    page.expected = "422"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desk", "phone"])
def test_looks_and_accessibility(page, scheme, size):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE if size == "phone" else {"width": 1180, "height": 800})
    page.check("#states")
    write(page, seed="2", length="400", temperature="1")
    page.locator("#texts i").nth(40).hover()
    shot(page, f"{size}-{scheme}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    check_accessibility(page)
    page.click("#tab-score")
    page.fill("#scored", "over the hills and far away\n" * 3)
    page.click("#scoring .main")
    page.wait_for_selector("#scores ol button")
    shot(page, f"{size}-{scheme}-score")
    check_accessibility(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def check_accessibility(page):
    if "DEEPRNN_AXE" not in os.environ:
        return
    page.evaluate(Path(os.environ["DEEPRNN_AXE"]).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert found == [], json.dumps([(each["id"], [n["html"] for n in each["nodes"]]) for each in found], indent=1)
