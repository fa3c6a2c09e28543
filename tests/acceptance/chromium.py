"""A real browser for tests: the system's Chromium, driven by Playwright, which brings none of its own here."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FOUND = next((path for name in NAMES if (path := shutil.which(name))), None)
# As root, which a container's tests often are, Chromium has no sandbox; and nothing of it shall call home.
ARGUMENTS = ["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"]
# Of whatever waits for a page, by itself or in an `expect`.
PATIENCE_MILLISECONDS = 20_000
expect.set_options(timeout=PATIENCE_MILLISECONDS)

needs_chromium = pytest.mark.skipif(
    FOUND is None, reason="there is no Chromium here to open the console in: apt-get install chromium"
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run one until the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=FOUND, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, key: str, *, expected: str = "", **context: Any) -> Iterator[Page]:
    """A page of somebody who has signed in; what goes wrong in it, as against its own policy, fails the test.

    But not what matches `expected`.
    """
    wrong: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            wrong.append(message.text)

    def ask(dialog: Dialog) -> None:
        wrong.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    made = browser.new_context(base_url=url, **context)
    made.set_default_timeout(PATIENCE_MILLISECONDS)
    try:
        page = made.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", ask)
        page.goto("/console")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/console")
        yield page
    finally:
        made.close()
    unforeseen = [each for each in wrong if not expected or not re.search(expected, each)]
    assert unforeseen == [], unforeseen
