"""A headless Chromium for the tests of pages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

try:
    from selenium.webdriver import ActionChains, Chrome, ChromeOptions, Keys
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
except ImportError:
    ActionChains = Chrome = ChromeOptions = Keys = Service = By = None  # type: ignore[assignment, misc]

__all__ = ["NO_BROWSER", "ActionChains", "By", "Keys", "start_browser"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
NO_BROWSER = ""  # or why there is none
if Chrome is None:
    NO_BROWSER = "selenium is not installed (extra browser)"
elif not CHROMIUM or not DRIVER:
    NO_BROWSER = "no Chromium with its driver (Debian: apt install chromium chromium-driver)"


def start_browser(downloads: Path | None = None) -> Any:
    """Start Chromium without a window; it logs what the console and the network say, and moves nothing smoothly."""
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb",
                     "--hide-scrollbars", "--force-device-scale-factor=1", "--window-size=1000,900",
                     "--force-prefers-reduced-motion"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if downloads is not None:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(120)
    return driver
