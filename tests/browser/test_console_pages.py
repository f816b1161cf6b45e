"""Every page of the console in a real browser, with the data of a busy day."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from playwright.async_api import expect

from pgworker.api.app import create_app
from pgworker.api.service import Service
from pgworker.context import open_platform
from pgworker.http_server import HttpServer, open_listener
from pgworker.settings import load_settings
from tests.support.browser import DESK, PHONE, open_console, running_browser
from tests.support.sample_data import SampleDay, write_sample_day
from tests.support.server import create_database, drop_database, make_template
from tests.support.worker_process import KEY, ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

    from tests.support.server import RunServer

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

TOKEN = "the-token-of-an-operator"
# `make screenshots` keeps the pictures; other runs take them too, and delete them.
KEPT = "PGWORKER_SCREENSHOTS"
IMAGES = ROOT / "docs" / "images"


@dataclass
class Site:
    """The console with the sample data of a day; no worker runs, so that nothing changes.

    Attributes:
        url: of the overview.
    """

    url: str
    day: SampleDay
    group: str
    server: HttpServer

    def cut_connections(self) -> None:
        """Cut every connection, as a restarting proxy does."""
        for connection in list(self.server.server_state.connections):
            connection.transport.abort()

    def paths(self) -> dict[str, str]:
        """Return the path of every page, by the name of its picture."""
        failed = self.day["Saffron Catering"]
        return {
            "overview": "",
            "clients": "/clients",
            "client": f"/clients/{failed}",
            "client-ready": f"/clients/{self.day['Acorn Dental']}",
            "client-waiting": f"/clients/{self.day['Tallow Candles']}",
            "failures": f"/errors/{self.group}",
            "confirm": f"/errors/{self.group}/retry",
            "cancel": f"/clients/{failed}/cancel",
            "problem": "/clients/00000000-0000-4000-8000-000000000000",
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(server: RunServer) -> AsyncIterator[Site]:
    await make_template(server)
    name = await create_database(server, template=server.template)
    settings = load_settings(
        DATABASE_URL=server.dsn_of(name),
        PGWORKER_ENCRYPTION_KEYS=KEY,
        PGWORKER_API_TOKENS=f"ada:admin:{TOKEN}",
    )
    try:
        async with open_platform(settings) as platform:
            async with platform.pool.acquire() as connection:
                day = await write_sample_day(connection)
            group = (await platform.status.list_failed_groups())[0].group_id
            service = Service.from_platform(platform)
            web = HttpServer(create_app(service), timeout_graceful_shutdown=1)
            with open_listener("127.0.0.1", 0) as listener:
                port = listener.getsockname()[1]
                async with asyncio.TaskGroup() as tasks:
                    watching = tasks.create_task(service.feed.run())
                    serving = tasks.create_task(web.serve(sockets=[listener]))
                    await web.accepting.wait()
                    yield Site(f"http://127.0.0.1:{port}/admin/provisioning", day, group, web)
                    service.feed.close()
                    web.closing.set()
                    await serving
                    watching.cancel()
    finally:
        await drop_database(server, name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as running:
        yield running


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
async def test_every_page_is_accessible(
    site: Site, browser: Browser, *, is_dark: bool, size: tuple[int, int]
) -> None:
    async with open_console(browser, site.url, size=size, is_dark=is_dark) as operator:
        await operator.open("/sign-in")
        assert await operator.find_accessibility_problems() == []
        await operator.sign_in(TOKEN)
        for name, path in site.paths().items():
            await operator.open(path)
            assert await operator.find_accessibility_problems() == [], name
        await operator.open()
        await operator.press("Retry 7 clients")
        await expect(operator.page.get_by_role("dialog")).to_be_visible()
        assert await operator.find_accessibility_problems() == []
        # The browser reports the page that is a 404 on purpose.
        operator.ignore_problems("404")


async def test_no_page_is_wider_than_a_phone(site: Site, browser: Browser) -> None:
    async with open_console(browser, site.url, size=PHONE, token=TOKEN) as operator:
        for name, path in site.paths().items():
            await operator.open(path)
            width = await operator.page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE[0], name
        # The browser reports the page that is a 404 on purpose.
        operator.ignore_problems("404")


async def test_the_keyboard_reaches_everything(site: Site, browser: Browser) -> None:
    async with open_console(browser, site.url, token=TOKEN) as operator:
        page = operator.page
        await operator.open()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Pause")).to_be_focused()

        retry = page.get_by_role("link", name="Retry 7 clients")
        await retry.focus()
        await page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        await expect(dialog).to_be_visible()
        await expect(dialog.get_by_role("button", name="Retry 7 clients")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        await expect(retry).to_be_focused()


async def test_the_focus_stays_when_the_page_follows_a_change(site: Site, browser: Browser) -> None:
    async with open_console(browser, site.url, token=TOKEN) as operator:
        await operator.open()
        link = operator.page.get_by_role("link", name="Quarry Stone")
        await link.focus()
        async with operator.page.expect_response(lambda answer: answer.url == site.url):
            await operator.page.evaluate("htmx.trigger('#live', 'sse:changed')")
        await expect(link).to_be_focused()


async def test_a_person_whose_session_has_ended_is_asked_to_sign_in_again(
    site: Site, browser: Browser
) -> None:
    async with open_console(browser, site.url, token=TOKEN) as operator:
        await operator.open()
        await operator.wait_until_live()
        await operator.page.context.clear_cookies()
        await operator.page.evaluate("htmx.trigger('#live', 'sse:changed')")
        await expect(operator.page.get_by_label("Token")).to_be_visible()


async def test_a_lost_connection_is_shown_and_restored(site: Site, browser: Browser) -> None:
    async with open_console(browser, site.url, token=TOKEN) as operator:
        await operator.open()
        await operator.wait_until_live()
        await operator.mark()
        await operator.page.route("**/stream*", lambda route: route.abort())
        site.cut_connections()
        await expect(operator.page.locator("#live-state")).to_have_text("Reconnecting")

        await operator.page.unroute_all()

        await operator.wait_until_live()
        await operator.expect_text("11 clients need attention")
        assert await operator.was_not_reloaded()
        # The browser and htmx report a cut connection in their own words: the stream's, and that
        # of a request in progress.
        operator.ignore_problems(
            "net::ERR_", "htmx:sseError", "htmx:sendError", "htmx:afterRequest", "[object Event]"
        )


async def test_times_are_shown_relative_and_absolute(site: Site, browser: Browser) -> None:
    async with open_console(browser, site.url, token=TOKEN) as operator:
        await operator.open(f"/clients/{site.day['Acorn Dental']}")
        times = operator.page.locator("time")
        assert await times.count() > 5
        for each in await times.all():
            assert "ago" in (await each.inner_text())
            assert (await each.get_attribute("title") or "").endswith(" UTC")


async def test_a_chart_describes_in_words_what_it_shows(site: Site, browser: Browser) -> None:
    async with open_console(browser, site.url, token=TOKEN) as operator:
        chart = operator.page.get_by_role("img", name="Time in await_project, hour by hour")
        await expect(chart).to_have_count(1)
        await expect(chart.locator("desc")).to_contain_text("half of them within")


PICTURES = {
    "overview": ("overview", DESK, False, None),
    "overview-dark": ("overview", DESK, True, None),
    "overview-phone": ("overview", PHONE, False, None),
    "clients": ("clients", DESK, False, None),
    "client": ("client", DESK, False, None),
    "confirm": ("overview", DESK, False, "Retry 7 clients"),
}


@pytest.mark.parametrize("name", PICTURES)
async def test_a_picture_of_each_page_is_taken(
    site: Site, browser: Browser, tmp_path: Path, name: str
) -> None:
    page, size, is_dark, pressed = PICTURES[name]
    folder = IMAGES if KEPT in os.environ else tmp_path
    async with open_console(browser, site.url, token=TOKEN, size=size, is_dark=is_dark) as operator:
        await operator.open(site.paths()[page])
        await operator.wait_until_live()
        if pressed is not None:
            await operator.press(pressed)
            await expect(operator.page.get_by_role("dialog")).to_be_visible()
        file = folder / f"console-{name}.png"
        await operator.page.screenshot(path=file, animations="disabled")
    assert file.stat().st_size > 10_000
    assert (IMAGES / file.name).exists(), "make screenshots"
    assert f"images/{file.name}" in (ROOT / "docs" / "console.md").read_text()
