"""``darsr ui`` in a browser: a picture goes in, is steered and saved; nothing fails in the console or leaves the machine."""

# ruff: noqa: E402 (what is not installed is a reason to skip, before it is imported)
from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

for module, extra in (("starlette", "ui"), ("uvicorn", "ui"), ("onnxruntime", "ort")):
    pytest.importorskip(module, reason=f"{module} is not installed (extra {extra})")

from darsr_deploy.images.arrays import read_image, write_image
from export.page import studio
from tests.support.browser import NO_BROWSER, ActionChains, By, Keys, start_browser
from tests.support.commands import done
from tests.support.page_server import decoded, serving

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(NO_BROWSER), reason=NO_BROWSER)]
PATIENCE = 30  # seconds
DROP = """
const file = new File([Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0))], "dropped.png");
const data = new DataTransfer();
data.items.add(file);
document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
"""


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads):
    driver = start_browser(downloads)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("uploads")) as found:
        yield found


@pytest.fixture(scope="module")
def pictures(photo, tmp_path_factory) -> Path:
    """One that is blurred, one that is noisy and compressed, one that is none, one of 100 MB."""
    folder = tmp_path_factory.mktemp("pictures")
    write_image(folder / "blurred.png", cv2.GaussianBlur(photo, (0, 0), 1.2))
    noisy = photo + np.random.default_rng(0).normal(0, 6, photo.shape)
    write_image(folder / "dirty.jpg", np.clip(noisy, 0, 255).astype(np.uint8), quality=60)
    (folder / "text.png").write_text("hello")
    with open(folder / "big.png", "wb") as file:
        file.truncate(100_000_000)
    return folder


@pytest.fixture
def page(browser, server):
    browser.get_log("performance")
    browser.get(server.url)
    yield browser
    assert browser.get_log("browser") == [], "something failed in the console"
    entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]
    assert server.url in asked
    assert all(url.startswith((server.url, "data:", "blob:")) for url in asked), "a request left the machine"


def text(page, name: str) -> str:
    return page.find_element(By.ID, name).text


def wait(page, ready, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not ready(page):
        assert time.monotonic() < end, f"{what}: {text(page, 'status')} {text(page, 'error')}"
        time.sleep(0.02)


def shown(page, side: str) -> str:
    return page.find_element(By.CSS_SELECTOR, f"[data-name={side}]").get_attribute("src") or ""


def quiet(page) -> bool:
    return not page.find_elements(By.CSS_SELECTOR, ".stale") and not text(page, "status")


def give(page, file: Path) -> None:
    """Choose a file, and wait for its result."""
    page.find_element(By.ID, "file").send_keys(str(file))
    wait(page, lambda page: text(page, "name") == file.name and quiet(page), "no result")


def move(page, slider: str, *keys: str) -> float:
    """Move a slider by keys; return the seconds until the picture has changed."""
    before = shown(page, "right")
    started = time.monotonic()
    page.find_element(By.ID, slider).send_keys(*keys)
    wait(page, lambda page: shown(page, "right") != before, "the picture stays")
    seconds = time.monotonic() - started
    wait(page, quiet, "it goes on")
    return seconds


def test_from_a_photograph_to_files(page, pictures, downloads, tmp_path, record_property):
    same = (pictures / "blurred.png", "--threads", "1")
    row = json.loads(done("upscale", *same, "-o", tmp_path / "first.png", "--json").stdout)
    give(page, pictures / "blurred.png")
    assert text(page, "decision").lower() == row["decision"].lower() and text(page, "error") == ""
    after = read_image(tmp_path / "first.png")
    assert np.array_equal(decoded(shown(page, "right")), after)
    assert page.find_element(By.CSS_SELECTOR, "#kernel svg").size["width"] > 100
    words = text(page, "kernel-words")
    record_property("seconds of a slider", move(page, "amount", Keys.ARROW_LEFT, Keys.ARROW_LEFT))
    assert (
        page.find_element(By.CSS_SELECTOR, "output[for=amount]").text == "0.8" and text(page, "kernel-words") != words
    )
    done("upscale", *same, "--amount", "0.8", "-o", tmp_path / "milder.png")
    done("upscale", *same, "--amount", "0.8", "-o", tmp_path / "milder.jpg", "--format", "jpg")
    assert np.array_equal(decoded(shown(page, "right")), read_image(tmp_path / "milder.png"))
    assert text(page, "command") == "darsr upscale blurred.png --amount 0.8"
    for kind in ("png", "jpg"):
        page.find_element(By.CSS_SELECTOR, f"[data-kind={kind}]").click()
        saved = downloads / f"blurred_x2.{kind}"
        wait(page, lambda _, saved=saved: saved.is_file(), "nothing was saved")
        assert saved.read_bytes() == (tmp_path / f"milder.{kind}").read_bytes()
    page.find_element(By.CSS_SELECTOR, "[type=reset]").click()
    wait(page, lambda page: np.array_equal(decoded(shown(page, "right")), after), "not as found")
    page.find_element(By.CSS_SELECTOR, "[name=scale][value='4']").find_element(By.XPATH, "..").click()
    wait(page, lambda page: decoded(shown(page, "right")).shape[:2] == (320, 384), "no scale of 4")


def test_a_file_that_takes_long_shows_how_far_it_is_and_can_be_cancelled(page, pictures, monkeypatch):
    def slow(task, report):
        for step in range(1000):
            report({"step": step, "steps": 1000})
            time.sleep(0.02)

    give(page, pictures / "blurred.png")
    monkeypatch.setattr("export.page.files.upscale_picture", slow)
    page.find_element(By.CSS_SELECTOR, "[data-kind=png]").click()
    wait(page, lambda page: page.find_element(By.ID, "progress").get_attribute("max") == "1000", "no progress")
    assert text(page, "status") == "Making the file …" and page.find_element(By.ID, "steer").get_property("inert")
    page.find_element(By.ID, "cancel").click()
    wait(page, lambda page: text(page, "status") == "Cancelled.", "it goes on")
    assert not page.find_element(By.ID, "making").is_displayed()
    move(page, "amount", Keys.ARROW_LEFT)


def test_the_divider_by_keys_and_sliders_of_what_was_found(page, pictures):
    give(page, pictures / "blurred.png")
    assert not page.find_element(By.ID, "denoise").is_enabled() and text(page, "denoise-note") == "None was found."
    divider = page.find_element(By.CLASS_NAME, "divider")
    divider.send_keys(Keys.HOME)
    whole = page.find_element(By.CLASS_NAME, "stage").screenshot_as_png
    divider.send_keys(Keys.END)
    assert divider.get_attribute("aria-valuetext") == "100 % Before, 0 % After"
    assert page.find_element(By.CLASS_NAME, "stage").screenshot_as_png != whole
    give(page, pictures / "dirty.jpg")
    assert "JPEG 60" in text(page, "decision") and page.find_element(By.ID, "denoise").is_enabled()
    for slider in ("denoise", "deblock"):
        move(page, slider, Keys.HOME)
    assert text(page, "command") == "darsr upscale dirty.jpg --denoise 0 --deblock 0"


def test_bad_files_are_sentences_and_the_page_lives_on(page, pictures):
    for name, line in (
        ("text.png", "text.png: is not an image that can be read; save it as PNG, TIFF, WebP, JPEG or BMP"),
        ("big.png", "big.png: is of 100 MB, more than the 8 MB that this page takes"),
    ):
        page.find_element(By.ID, "file").send_keys(str(pictures / name))
        wait(page, lambda page, line=line: text(page, "error").startswith(line), "no sentence")
        assert text(page, "status") == ""
    give(page, pictures / "blurred.png")
    assert text(page, "error") == ""


def test_a_picture_is_dropped_and_another_part_is_looked_at(page, photo, tmp_path, monkeypatch):
    monkeypatch.setitem(studio.WINDOW, 2, 64)
    write_image(tmp_path / "dropped.png", cv2.GaussianBlur(photo, (0, 0), 1.2))
    page.execute_script(DROP, base64.b64encode((tmp_path / "dropped.png").read_bytes()).decode())
    wait(page, lambda page: text(page, "name") == "dropped.png" and quiet(page), "no result")
    page.find_element(By.CSS_SELECTOR, "[data-do=in]").click()
    zoom = page.find_element(By.CLASS_NAME, "zoom").text
    whole = page.find_element(By.ID, "whole")
    before = shown(page, "left")
    ActionChains(page).move_to_element_with_offset(whole, -40, -30).click().perform()
    wait(page, lambda page: shown(page, "left") != before and quiet(page), "the part stays")
    assert whole.get_attribute("aria-label") == "Part at 0, 0 of 96 × 80 pixels"
    before = shown(page, "left")
    whole.send_keys(Keys.ARROW_RIGHT)
    wait(page, lambda page: shown(page, "left") != before and quiet(page), "the part stays")
    assert whole.get_attribute("aria-label") == "Part at 16, 0 of 96 × 80 pixels"
    assert page.find_element(By.CLASS_NAME, "zoom").text == zoom, "it stays enlarged"


def test_every_control_is_reached_by_the_tab_key(page, pictures):
    give(page, pictures / "dirty.jpg")
    page.execute_script("document.activeElement.blur()")
    reached = set()
    for _ in range(30):
        ActionChains(page).send_keys(Keys.TAB).perform()
        name = "const e = document.activeElement; return e.dataset.do || e.dataset.kind || e.id || e.name || e.classList[0] || e.type"
        reached.add(page.execute_script(name))
    assert {"file", "in", "whole", "stage", "divider", "scale", "amount", "denoise", "deblock", "reset"} <= reached
    assert {"png", "jpg", "adapter", "onnx"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(page, pictures, scheme):
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 3, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        page.refresh()
        give(page, pictures / "dirty.jpg")
        assert page.execute_script("return document.documentElement.scrollWidth") == 360
        ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(","))) > 380) == (scheme == "light")
        small = "return [...document.querySelectorAll('button, .choice span, #drop label, .slider input')]"
        heights = page.execute_script(small + ".map((e) => e.getBoundingClientRect().height).filter((h) => h)")
        assert len(heights) > 10 and min(heights) >= 44
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_program_that_has_ended_is_a_sentence(browser, pictures, tmp_path):
    with serving(tmp_path) as server:
        browser.get(server.url)
        give(browser, pictures / "blurred.png")
    browser.find_element(By.ID, "amount").send_keys(Keys.ARROW_RIGHT)
    wait(browser, lambda page: text(page, "error").startswith("The program does not answer"), "no sentence")
    browser.get_log("browser")  # where Chromium says so too
