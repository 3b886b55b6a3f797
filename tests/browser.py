"""A headless Chromium, where this computer has one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PLACES = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")


def chromium() -> str | None:
    """Where a Chromium is, or None."""
    found = (shutil.which(name) for name in NAMES)
    return next((path for path in found if path), next((path for path in PLACES if Path(path).exists()), None))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `dev` is not installed")
    path = chromium()
    if path is None:
        pytest.skip("there is no Chromium here; on Debian and Ubuntu: apt-get install chromium")
    # Chromium's sandbox does not work for root, as in containers. The pages are our own.
    rootless = [] if os.name == "nt" or os.geteuid() else ["--no-sandbox"]
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=rootless, timeout=120_000)
        yield opened
        opened.close()
