"""The console in a real browser, with a real `pgworker run --http` that provisions clients."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.support.browser import Operator, open_console, running_browser
from tests.support.clusters import running_server
from tests.support.worker_process import ROOT, running_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

TOKEN = "the-token-of-an-operator"
BROKEN = "20260101990000_broken.sql"


@dataclass
class Site:
    """A worker with its console.

    Attributes:
        url: of the overview.
        migrations: its canonical set; a test may break it, and repair it.
    """

    url: str
    connection: asyncpg.Connection
    migrations: Path

    async def add(self, *names: str) -> list[UUID]:
        """Insert clients, as the platform does."""
        rows = await self.connection.fetch(
            "insert into clients (name, auto_provision) select unnest($1::text[]), true"
            " returning id",
            list(names),
        )
        return [row["id"] for row in rows]

    async def tidy(self) -> None:
        """Remove what would affect another test."""
        self.repair_migrations()
        await self.connection.execute("select pgworker.resume('all')")
        await self.connection.execute(
            "select pgworker.cancel(client_id) from client_provisioning_jobs"
            " where status = 'failed'"
        )

    async def statuses(self, ids: list[UUID]) -> set[str]:
        rows = await self.connection.fetch(
            "select distinct provisioning_status as status from clients where id = any($1)", ids
        )
        return {row["status"] for row in rows}

    def break_migrations(self) -> None:
        (self.migrations / BROKEN).write_text("select 1 / 0;\n")

    def repair_migrations(self) -> None:
        (self.migrations / BROKEN).unlink(missing_ok=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("console")
    migrations = folder / "migrations"
    shutil.copytree(ROOT / "supabase" / "migrations", migrations)
    # A server of its own: real tenants are created on it.
    async with (
        running_server() as server,
        running_worker(
            folder,
            *("run", "--migrate", "--http", "127.0.0.1:0"),
            DATABASE_URL=server.dsn,
            PGWORKER_MIGRATIONS_DIR=str(migrations),
            PGWORKER_API_TOKENS=f"ada:admin:{TOKEN}",
        ) as worker,
    ):
        (listening,) = await worker.wait_for("http_started")
        await worker.wait_for("listen_connected")
        connection = await asyncpg.connect(server.dsn)
        yield Site(f"{listening['url']}/admin/provisioning", connection, migrations)
        await connection.close()
        assert await worker.stop() == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def operator(site: Site, browser: Browser) -> AsyncIterator[Operator]:
    await site.tidy()
    async with open_console(browser, site.url, token=TOKEN) as signed_in:
        yield signed_in


async def test_a_client_is_seen_becoming_ready_without_a_reload(
    site: Site, operator: Operator
) -> None:
    await site.connection.execute("select pgworker.pause('all')")
    (client_id,) = await site.add("Watched")
    await operator.open(f"/clients/{client_id}")
    await operator.wait_until_live()
    await operator.mark()
    await operator.expect_text("Queued for create_project (phase 1 of 4): paused by sql:postgres")

    await site.connection.execute("select pgworker.resume('all')")

    await operator.expect_text("Ready: provisioned and checked.")
    await operator.expect_text("smoke_checks is done: ready")
    assert await operator.was_not_reloaded()


async def test_the_overview_follows_what_happens_without_a_reload(
    site: Site, operator: Operator
) -> None:
    await operator.open()
    await operator.wait_until_live()
    await operator.mark()
    site.break_migrations()

    await site.add("Seen failing")

    failed = operator.page.get_by_role("region", name="Failed")
    await expect(failed.get_by_role("link", name="Seen failing")).to_be_visible()
    assert await operator.was_not_reloaded()


async def test_a_failure_is_read_fixed_and_retried(site: Site, operator: Operator) -> None:
    site.break_migrations()
    (client_id,) = await site.add("Failing once")
    await operator.open(f"/clients/{client_id}")
    await operator.expect_text("Failed in schema_sync (phase 3 of 4)")
    await operator.expect_text(f"{BROKEN}:1 (statement 1): division by zero [22012]")
    await operator.expect_text("fix what the message names, then retry")
    site.repair_migrations()

    await operator.press("Retry")

    await operator.expect_text("Queued again.")
    await operator.expect_text("Ready: provisioned and checked.")
    await operator.expect_text("Retried by a person")


async def test_a_group_of_clients_with_the_same_error_is_retried_by_one_press(
    site: Site, operator: Operator
) -> None:
    site.break_migrations()
    names = [f"Forty {number}" for number in range(4)]
    ids = await site.add(*names)
    await operator.open()
    group = operator.page.get_by_role("article").filter(has_text="Forty")
    await expect(group).to_contain_text("4 clients in schema_sync")
    site.repair_migrations()

    await group.get_by_role("link", name="Retry 4 clients").click()
    await expect(operator.page.get_by_role("dialog")).to_contain_text("nothing is created twice")
    assert await site.statuses(ids) == {"failed"}, "it must ask first"
    await operator.confirm("Retry 4 clients")

    await operator.expect_text("Queued again: 4 clients.")
    await expect(group).to_have_count(0)
    await operator.search("Forty")
    await expect(operator.page.locator("tbody .chip.good")).to_have_count(4)
    assert await site.statuses(ids) == {"ready"}


async def test_a_pause_holds_clients_back_until_it_is_resumed(
    site: Site, operator: Operator
) -> None:
    await operator.open()
    await operator.press("Pause")
    await operator.expect_text("Everything is paused")
    (client_id,) = await site.add("Held back")
    held = operator.page.get_by_role("region", name="Queued and waiting")
    await expect(held).to_contain_text("Held back")
    await expect(held).to_contain_text("Paused by sql:postgres for ada")

    await operator.press("Resume")

    await operator.expect_text("Resumed.")
    await operator.open(f"/clients/{client_id}")
    await operator.expect_text("Ready: provisioned and checked.")


async def test_cancelling_asks_first_and_changes_nothing_when_refused(
    site: Site, operator: Operator
) -> None:
    await site.connection.execute("select pgworker.pause('all')")
    (client_id,) = await site.add("Unwanted")
    await operator.open(f"/clients/{client_id}")
    await operator.press("Cancel")
    dialog = operator.page.get_by_role("dialog")
    await expect(dialog).to_contain_text("stays there, and may keep costing money")
    await dialog.get_by_role("link", name="Keep going").click()
    await expect(dialog).to_be_hidden()
    assert await site.statuses([client_id]) == {"queued"}

    await operator.press("Cancel")
    await operator.confirm("Cancel it")

    await operator.expect_text("Cancelled. What exists at the provider stays there.")
    assert await site.statuses([client_id]) == {"cancelled"}


async def test_all_buttons_work_without_javascript(site: Site, browser: Browser) -> None:
    await site.tidy()
    site.break_migrations()
    ids = await site.add("Plain 1", "Plain 2")
    async with open_console(browser, site.url, has_scripts=False, token=TOKEN) as operator:
        group = operator.page.get_by_role("article").filter(has_text="Plain")
        while not await group.filter(has_text="2 clients in").count():
            await operator.open()
        site.repair_migrations()
        await group.get_by_role("link", name="Retry 2 clients").click()
        await operator.press("Retry 2 clients")
        await operator.expect_text("Queued again: 2 clients.")
        await operator.press("Pause")
        await operator.expect_text("Everything is paused")
        await operator.press("Resume")
        await operator.expect_text("Resumed.")
        while await site.statuses(ids) != {"ready"}:
            await operator.open()
        await operator.search("Plain 1")
        await operator.page.get_by_role("link", name="Plain 1").click()
        await operator.expect_text("Ready: provisioned and checked.")


async def test_signing_out_ends_the_session(operator: Operator) -> None:
    await operator.press("Sign out")
    await expect(operator.page.get_by_label("Token")).to_be_visible()
    await operator.open()
    await expect(operator.page.get_by_label("Token")).to_be_visible()


async def test_a_wrong_token_is_refused_in_words(site: Site, browser: Browser) -> None:
    async with open_console(browser, site.url) as stranger:
        await stranger.open()
        await stranger.page.get_by_label("Token").fill("this is not a token")
        await stranger.press("Sign in")
        await stranger.expect_text("There is no such token")
        # The browser reports every 401 in its own words.
        stranger.ignore_problems("401")
