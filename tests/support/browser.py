"""A real browser, and the console as its user sees it."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import async_playwright, expect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, ConsoleMessage, Page

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")
# For a busy machine with two cores; a test that passes doesn't wait so long.
TIMEOUT_MS = 60_000
DESK = (1280, 860)
PHONE = (390, 844)

expect.set_options(timeout=TIMEOUT_MS)

_WATCH_POLICY = """
    window.refusedByPolicy = [];
    document.addEventListener("securitypolicyviolation", (event) =>
        window.refusedByPolicy.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


def find_chromium() -> str:
    """Return the path of a Chromium; without one the test is skipped, or fails in CI."""
    named = os.environ.get("PGWORKER_TEST_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        reason = "no Chromium was found: apt-get install chromium, or set PGWORKER_TEST_CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """Run a Chromium while the block runs."""
    path = find_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=FLAGS, timeout=TIMEOUT_MS
        )
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Operator:
    """A user of the console in one browser window.

    Attributes:
        url: of the overview.
        problems: errors and warnings of the browser.
    """

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    async def sign_in(self, token: str) -> None:
        await self.page.goto(self.url)
        await self.page.get_by_label("Token").fill(token)
        await self.page.get_by_role("button", name="Sign in").click()
        await expect(self.page.get_by_role("link", name="Overview")).to_be_visible()

    async def open(self, path: str = "") -> None:
        await self.page.goto(self.url + path)

    async def wait_until_live(self) -> None:
        """Wait until the page shows changes as they happen."""
        await expect(self.page.locator("#live-state")).to_have_text("Live")

    async def search(self, text: str) -> None:
        await self.page.get_by_role("searchbox", name="Search clients").fill(text)
        await self.page.keyboard.press("Enter")

    async def press(self, name: str) -> None:
        """Press a button (or a link that looks like one)."""
        button = self.page.get_by_role("button", name=name, exact=True)
        link = self.page.get_by_role("link", name=name, exact=True)
        await button.or_(link).first.click()

    async def confirm(self, name: str) -> None:
        """Press this button of the open dialog."""
        await self.page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()

    async def expect_text(self, text: str | re.Pattern[str]) -> None:
        await expect(self.page.locator("main")).to_contain_text(text)

    async def mark(self) -> None:
        """Set a mark that a reload would remove."""
        await self.page.evaluate("window.mark = 'still here'")

    async def was_not_reloaded(self) -> bool:
        return bool(await self.page.evaluate("window.mark === 'still here'"))

    async def find_accessibility_problems(self) -> list[str]:
        """Return the violations that axe-core finds on the page."""
        found = (await Axe().run(self.page)).response["violations"]
        return [
            f"{each['impact']}: {each['id']}: {node['html']}"
            for each in found
            for node in each["nodes"]
        ]

    async def find_policy_violations(self) -> list[str]:
        found: list[str] = await self.page.evaluate("window.refusedByPolicy ?? []")
        return found

    def ignore_problems(self, *words: str) -> None:
        """Drop problems that a test has caused on purpose: those with one of these words."""
        self.problems[:] = [
            each for each in self.problems if not any(word in each for word in words)
        ]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.problems.append(f"{message.type}: {message.text} ({message.location})")


@asynccontextmanager
async def open_console(
    browser: Browser,
    url: str,
    *,
    token: str | None = None,
    size: tuple[int, int] = DESK,
    is_dark: bool = False,
    has_scripts: bool = True,
) -> AsyncIterator[Operator]:
    """Open the console in a browser window; at the end there must be no problem in it."""
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if is_dark else "light",
        java_script_enabled=has_scripts,
        reduced_motion="reduce",
    )
    context.set_default_timeout(TIMEOUT_MS)
    await context.add_init_script(_WATCH_POLICY)
    try:
        page = await context.new_page()
        operator = Operator(page, url)
        page.on("console", operator._on_console)
        page.on("pageerror", lambda error: operator.problems.append(str(error)))
        if token is not None:
            await operator.sign_in(token)
        yield operator
        if has_scripts:
            refused = await operator.find_policy_violations()
            assert not refused, refused
        assert not operator.problems, operator.problems
    finally:
        await context.close()
