"""Debian's Chromium, driven by Playwright, which brings no browser of its own."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str:
    """The browser of the system; the test is skipped where there is none."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed; apt-get install chromium")
    return found


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = chromium_path()
    with sync_playwright() as library:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = library.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@contextmanager
def opened_page(
    browser: Any, address: str, theme: str = "light", width: int = 1280, height: int = 720
) -> Iterator[Any]:
    """A page in a context of its own. At its end no error was logged and no other server was asked."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, accept_downloads=True, reduced_motion="reduce"
    )
    page = context.new_page()
    errors: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    origin = address.partition("#")[0]
    others = [url for url in asked if not url.startswith((origin, f"blob:{origin}"))]
    context.close()
    assert not errors and not others, (errors, others)


def waited(page: Any, name: str, more_than: int, seconds: float = 60) -> int:
    """Waits until a counter of the page, such as that of finished analyses, is above a number."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        count = int(page.locator("main").get_attribute(f"data-{name}") or 0)
        if count > more_than:
            return count
        page.wait_for_timeout(30)
    raise AssertionError(f"the page did not get further than {name} {more_than}: {page.inner_text('#status')}")


def settled(page: Any) -> int:
    """Waits until the page has computed all that it shows and nothing new came for a while."""
    count = waited(page, "settled", 0)
    for _ in range(200):
        page.wait_for_timeout(500)
        new = int(page.locator("main").get_attribute("data-settled") or 0)
        if new == count:
            return count
        count = new
    raise AssertionError("the page does not come to rest")


def serious(page: Any, axe: str) -> list[str]:
    page.evaluate(f"() => {{ {axe} }}")
    found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
