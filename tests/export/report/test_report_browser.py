"""The page of ``darsr report`` in a browser: its divider moves, what is seen are the pixels, and nothing is loaded or fails."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.report.page import build_page
from tests.export.report.test_report import BENCH, backbone, folder, subject  # noqa: F401
from tests.support.browser import NO_BROWSER, ActionChains, By, Keys, start_browser

pytestmark = pytest.mark.skipif(bool(NO_BROWSER), reason=NO_BROWSER)
SIZE = 80, 96  # rows, columns of the pictures
EDGE, TOP = 30, 50  # around the divider stands its handle, in the corners above the names of the pictures


@pytest.fixture(scope="module")
def page(subject, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(build_page([subject], BENCH), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    driver = start_browser()
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    """The page as it is after loading, its pictures decoded."""
    browser.get_log("performance")
    browser.get(page.as_uri())
    browser.execute_async_script(
        "Promise.all([...document.images].map((image) => image.decode())).then(arguments[arguments.length - 1])"
    )
    yield browser
    assert browser.get_log("browser") == [], "something failed in the console"
    entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked
    assert all(url == page.as_uri() or url.startswith("data:") for url in asked), "a request left the page"


def stage(browser):
    return browser.find_element(By.CLASS_NAME, "stage")


def slider(browser):
    return browser.find_element(By.CLASS_NAME, "divider")


def value(browser) -> int:
    return int(slider(browser).get_property("value"))


def seen(browser) -> np.ndarray:
    browser.execute_script("document.activeElement.blur()")
    return np.asarray(Image.open(io.BytesIO(stage(browser).screenshot_as_png)).convert("RGB"))


def enlarged(picture: np.ndarray, zoom: int) -> np.ndarray:
    return picture.repeat(zoom, 0).repeat(zoom, 1)


def assert_shows(browser, left: np.ndarray, right: np.ndarray, at: float) -> None:
    """``left`` to the left of the divider at this share of the width, ``right`` to the right of it, to the pixel."""
    image = seen(browser)
    assert image.shape == left.shape
    x = round(at * image.shape[1])
    assert np.array_equal(image[TOP:, : max(0, x - EDGE)], left[TOP:, : max(0, x - EDGE)])
    assert np.array_equal(image[TOP:, x + EDGE :], right[TOP:, x + EDGE :])


def test_left_is_before_and_right_is_after_to_the_pixel(opened, subject):
    before, after = (enlarged(subject.pictures[name], 4) for name in ("backbone", "adapted"))
    assert not np.array_equal(before, after)
    assert_shows(opened, before, after, 0.5)
    slider(opened).send_keys(Keys.HOME)
    assert value(opened) == 0
    assert_shows(opened, before, after, 0.0)
    slider(opened).send_keys(Keys.END)
    assert_shows(opened, before, after, 1.0)
    slider(opened).send_keys(*3 * [Keys.ARROW_LEFT])
    assert value(opened) == 970
    assert slider(opened).get_attribute("aria-valuetext") == "97 % Backbone alone, 3 % Adapted"


def test_the_divider_follows_mouse_and_finger(opened, subject):
    before, after = (enlarged(subject.pictures[name], 4) for name in ("backbone", "adapted"))
    width = SIZE[1] * 4
    box = stage(opened)
    ActionChains(opened).move_to_element_with_offset(box, -width // 4, 60).click().perform()
    assert abs(value(opened) - 250) <= 10
    assert_shows(opened, before, after, value(opened) / 1000)
    ActionChains(opened).move_to_element_with_offset(box, -width // 4, 60).click_and_hold().move_by_offset(
        width // 2, 0
    ).release().perform()
    assert abs(value(opened) - 750) <= 10
    place = opened.execute_script("const b = arguments[0].getBoundingClientRect(); return [b.left, b.top]", box)
    for kind, share in (("Start", 0.75), ("Move", 0.5), ("Move", 0.25), ("End", None)):
        points = [] if share is None else [{"x": place[0] + share * width, "y": place[1] + SIZE[0] * 2}]
        opened.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    assert abs(value(opened) - 250) <= 20
    assert_shows(opened, before, after, value(opened) / 1000)


def test_other_pictures_can_be_chosen(opened, subject):
    for name in ("bicubic", "truth"):
        opened.find_element(By.CSS_SELECTOR, f"input[value={name}]").click()
    assert [tag.text for tag in opened.find_elements(By.CLASS_NAME, "tag")] == ["Bicubic", "Truth"]
    assert_shows(opened, *(enlarged(subject.pictures[name], 4) for name in ("bicubic", "truth")), 0.5)


def test_enlarged_by_keys_it_can_be_moved_and_stays_exact(opened, subject):
    before, after = (enlarged(subject.pictures[name], 8) for name in ("backbone", "adapted"))
    height, width = SIZE[0] * 4, SIZE[1] * 4
    for _ in range(2):
        stage(opened).send_keys("+")
    assert opened.find_element(By.CLASS_NAME, "zoom").text == "8×"
    middle = (slice(height // 2, height // 2 + height), slice(width // 2, width // 2 + width))
    assert_shows(opened, before[middle], after[middle], 0.5)
    stage(opened).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    moved = tuple(slice(part.start + 40, part.stop + 40) for part in middle)
    assert_shows(opened, before[moved], after[moved], 0.5)
    stage(opened).send_keys(*12 * [Keys.ARROW_RIGHT])  # no further than its edge
    edge = (moved[0], slice(width, 2 * width))
    assert_shows(opened, before[edge], after[edge], 0.5)
    stage(opened).send_keys("0")
    assert_shows(opened, *(enlarged(subject.pictures[name], 4) for name in ("backbone", "adapted")), 0.5)


def test_every_control_is_reached_by_the_tab_key(opened):
    reached = set()
    for _ in range(20):
        ActionChains(opened).send_keys(Keys.TAB).perform()
        script = (
            "const e = document.activeElement; return e.dataset.do || e.dataset.side || e.classList[0] || e.tagName"
        )
        reached.add(opened.execute_script(script))
    assert {"left", "right", "in", "whole", "detail", "stage", "divider", "strip"} <= reached


@pytest.mark.parametrize("ratio", [1, 1.25, 3])
def test_close_ups_are_large_and_exact(opened, subject, ratio):
    """At least 256 CSS pixels, and each pixel a whole number of screen pixels, on screens of every density."""
    metrics = {"width": 900, "height": 900, "deviceScaleFactor": ratio, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        opened.refresh()
        for image in opened.find_elements(By.CSS_SELECTOR, "[data-pixels]"):
            width, pixels = image.size["width"], int(image.get_attribute("data-pixels"))
            wide = opened.execute_script("return arguments[0].getBoundingClientRect().width", image)
            zoom = wide * ratio / pixels
            assert wide >= 256 and abs(zoom - round(zoom)) < 0.02, (wide, zoom, width)
        if ratio == 1:
            crop = opened.find_element(By.CSS_SELECTOR, "[data-pixels]")
            shown = np.asarray(Image.open(io.BytesIO(crop.screenshot_as_png)).convert("RGB"))
            zoom = shown.shape[1] // int(crop.get_attribute("data-pixels"))
            assert np.array_equal(shown, enlarged(shown[::zoom, ::zoom], zoom))
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_one_picture_where_nothing_was_corrected(browser, subject, tmp_path):
    pictures = {**subject.pictures, "adapted": subject.pictures["backbone"]}
    (tmp_path / "one.html").write_text(build_page([replace(subject, pictures=pictures)]), encoding="utf-8")
    browser.get((tmp_path / "one.html").as_uri())
    assert np.array_equal(seen(browser), enlarged(pictures["backbone"], 4))
    stage(browser).send_keys(Keys.ARROW_LEFT, "+")
    assert browser.find_element(By.CLASS_NAME, "zoom").text == "6×"
    ActionChains(browser).move_to_element(stage(browser)).click_and_hold().move_by_offset(9, 9).release().perform()
    stage(browser).send_keys("0")
    assert np.array_equal(seen(browser), enlarged(pictures["backbone"], 4))
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(opened, scheme):
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 3, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        opened.refresh()
        assert opened.execute_script("return document.documentElement.scrollWidth") == 360
        assert opened.find_element(By.CLASS_NAME, "zoom").text == "10×"  # 96 px on 3 x (360 - 2 x 16) screen pixels
        ground = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(","))) > 380) == (scheme == "light")
        small = (
            "return [...document.querySelectorAll('button, .choice span')].map((e) => e.getBoundingClientRect().height)"
        )
        assert min(opened.execute_script(small)) >= 44
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
