"""A real browser, and the console as somebody sees it who presses its buttons."""

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
# A busy machine with two cores; what passes doesn't wait for it.
PATIENCE_MS = 60_000
DESK = (1280, 860)
PHONE = (390, 844)

expect.set_options(timeout=PATIENCE_MS)

_WATCH_POLICY = """
    window.refusedByPolicy = [];
    document.addEventListener("securitypolicyviolation", (event) =>
        window.refusedByPolicy.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


def find_chromium() -> str:
    """Return the path of a Chromium; where there is none the test is skipped, in CI it fails."""
    named = os.environ.get("PGWORKER_TEST_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        reason = "no Chromium was found: apt-get install chromium, or set PGWORKER_TEST_CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    """Start a Chromium."""
    path = find_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=FLAGS, timeout=PATIENCE_MS
        )
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Operator:
    """Somebody before the console.

    Attributes:
        url: of the overview.
        troubles: what the browser complained of.
    """

    page: Page
    url: str
    troubles: list[str] = field(default_factory=list)

    async def sign_in(self, token: str) -> None:
        await self.page.goto(self.url)
        await self.page.get_by_label("Token").fill(token)
        await self.page.get_by_role("button", name="Sign in").click()
        await expect(self.page.get_by_role("link", name="Overview")).to_be_visible()

    async def open(self, path: str = "") -> None:
        await self.page.goto(self.url + path)

    async def is_live(self) -> None:
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
        """Say yes to what the dialog asks."""
        await self.page.get_by_role("dialog").get_by_role("button", name=name, exact=True).click()

    async def sees(self, text: str | re.Pattern[str]) -> None:
        await expect(self.page.locator("main")).to_contain_text(text)

    async def mark(self) -> None:
        """Leave a mark that a reload would wipe away."""
        await self.page.evaluate("window.mark = 'still here'")

    async def was_not_reloaded(self) -> bool:
        return bool(await self.page.evaluate("window.mark === 'still here'"))

    async def accessibility_problems(self) -> list[str]:
        """Return what axe-core has to say of the page."""
        found = (await Axe().run(self.page)).response["violations"]
        return [
            f"{each['impact']}: {each['id']}: {node['html']}"
            for each in found
            for node in each["nodes"]
        ]

    async def refused_by_policy(self) -> list[str]:
        found: list[str] = await self.page.evaluate("window.refusedByPolicy ?? []")
        return found

    def forget(self, *words: str) -> None:
        """Forget troubles that a test has made on purpose: those with one of these words."""
        self.troubles[:] = [
            each for each in self.troubles if not any(word in each for word in words)
        ]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.troubles.append(f"{message.type}: {message.text} ({message.location})")


@asynccontextmanager
async def an_operator(
    browser: Browser,
    url: str,
    *,
    token: str | None = None,
    size: tuple[int, int] = DESK,
    is_dark: bool = False,
    has_scripts: bool = True,
) -> AsyncIterator[Operator]:
    """Open a browser window; at its end nothing may have gone wrong in it."""
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if is_dark else "light",
        java_script_enabled=has_scripts,
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE_MS)
    await context.add_init_script(_WATCH_POLICY)
    try:
        page = await context.new_page()
        operator = Operator(page, url)
        page.on("console", operator._on_console)
        page.on("pageerror", lambda error: operator.troubles.append(str(error)))
        if token is not None:
            await operator.sign_in(token)
        yield operator
        if has_scripts:
            refused = await operator.refused_by_policy()
            assert not refused, refused
        assert not operator.troubles, operator.troubles
    finally:
        await context.close()
