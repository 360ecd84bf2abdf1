"""Jobs at providers in the dashboard: what it says of them is what is known, and no more."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlmodel import select

from app.accounts import radar
from app.accounts.tables import ProviderCredential
from app.core import clock
from app.core.database import Database
from app.core.settings import Settings
from app.providers.base import Listed
from app.simulators.runs import Plan
from tests.providers.conftest import Stage, staged
from tests.support import as_owner
from tests.web.browser import Tab
from tests.web.test_dashboard import NAMES, STATUS, opened

SLOW = Plan(validating=0.1, queued=0.1, steps=1_000, step_seconds=0.3)
STANDING = "document.querySelector('.standing').innerText"
WHY = "document.querySelector('.whereabouts .why').textContent"
THEIRS = "[...document.querySelectorAll('.log .theirs')].map(n => n.nextSibling.textContent)"
PAUSE = "[...document.querySelectorAll('.actions button')].find(b => b.textContent === 'Pause')"
ROW_WHY = "document.querySelector('.jobs .why').textContent"
SILENT = "UPDATE jobs SET evidence_at = now() - interval '14 min' WHERE id = :id"
DENIED = """UPDATE provider_credentials SET status = 'denied', trouble = 'The key was revoked.'
 WHERE id = :id"""


def card(provider: str) -> str:
    return f"(document.querySelector('[data-provider={provider}]')?.innerText ?? '')"


def chosen(provider: str) -> str:
    """Choose a provider in the list's filter."""
    select = "document.querySelector('[aria-label=\"Filter by provider\"]')"
    return f"{select}.value = '{provider}', {select}.dispatchEvent(new Event('change'))"


@pytest.fixture
async def together(
    settings: Settings, database: Database, database_url: str
) -> AsyncIterator[Stage]:
    """It tells events, and can neither pause nor resume."""
    async with staged("together", settings, database, database_url, SLOW) as found:
        yield found


@pytest.fixture
async def openai(settings: Settings, database: Database, database_url: str) -> AsyncIterator[Stage]:
    async with staged("openai", settings, database, database_url) as found:
        yield found


async def test_a_job_at_a_provider_shows_where_it_is_and_what_is_heard_of_it(
    tab: Tab, together: Stage, database_url: str
) -> None:
    await together.connect()
    job = await together.submit(name="far away")
    url = together.api.url
    await opened(tab, url, together.tenant.key, f"#/jobs/{job}")
    await tab.until(f"{WHY} === 'On its way to Together AI.'")
    assert not await tab.evaluate(f"{PAUSE}.disabled"), "it is not there yet"

    async with together.driver():
        await tab.until(f"{STATUS} === 'running' && {WHY} === ''")
        there = (await together.job(job))["providerJobId"]
        await tab.until(f"{STANDING}.includes('{there}') && {STANDING}.includes('says running')")
        assert "by poll" in await tab.until(f"{STANDING}.includes('last heard') && {STANDING}")
        await tab.until(f"{PAUSE}.disabled")
        assert await tab.evaluate(f"{PAUSE}.title") == "Together AI cannot pause jobs."
        await tab.until(f"{THEIRS}.length > 1")
        own = "[...document.querySelectorAll('.log .kind:not(.theirs)')].map(n => n.textContent)"
        assert {"status", "message"} <= set(await tab.evaluate(own))

    # Nobody looks any more.
    await as_owner(database_url, SILENT, id=job)
    await tab.until(f"{WHY} === 'No word from Together AI for 14 min.'")
    await tab.until(f"{STANDING}.includes('last heard 14 min ago')")
    await tab.until("document.querySelector('.title .badge').matches('.running.stale')")
    await tab.until(f"{ROW_WHY} === 'No word from Together AI for 14 min.'")
    assert not await tab.evaluate("document.querySelector('.warning.error')?.textContent")
    tab.assert_stayed_home(url)


async def test_the_list_names_the_provider_and_filters_by_it(tab: Tab, together: Stage) -> None:
    await together.connect()
    await together.submit(name="far away")
    url = together.api.url
    await opened(tab, url, together.tenant.key)
    await tab.until(f"{NAMES}.join() === 'far away'")
    waits = "document.querySelector('.jobs .badge').title"
    await tab.until(f"{waits} === 'On its way to Together AI.'")
    await together.api.job_id(name="here")
    await tab.until(f"{NAMES}.join() === 'here,far away'")
    where = "[...document.querySelectorAll('.jobs .where')].map(n => n.textContent).join()"
    assert await tab.evaluate(where) == "Local,Together"

    queued = "document.querySelector('.tile.queued strong').textContent"
    await tab.evaluate(chosen("TOGETHER"))
    await tab.until(f"{NAMES}.join() === 'far away' && {queued} === '1'")
    other = await together.submit(name="further away")
    await together.api.job_id(name="also here")
    await tab.until(f"{NAMES}.join() === 'further away,far away' && {queued} === '2'")
    await together.api.act("cancelJob", other)
    await tab.until(f"{queued} === '1'")
    await tab.evaluate(chosen("OPENAI"))
    await tab.until("document.querySelector('.list .nothing').textContent === 'No job matches.'")
    await tab.evaluate(chosen(""))
    await tab.until(f"{NAMES}.length === 4")


async def test_a_job_without_data_here_and_without_an_end_in_sight_is_shown(
    tab: Tab, together: Stage, database_url: str
) -> None:
    """An imported one, whose provider does not tell how many steps there will be."""
    await together.connect()
    job = await together.submit(name="imported")
    async with together.driver():
        await together.until(job, lambda found: bool(found["progress"]))
    await as_owner(database_url, "UPDATE jobs SET training_version_id = NULL WHERE id = :j", j=job)
    await as_owner(
        database_url,
        "UPDATE streams SET latest = jsonb_set(jsonb_set(latest, '{progress,total_steps}', 'null'),"
        " '{progress,percent}', 'null') WHERE stream_id = :j",
        j=job,
    )
    url = together.api.url
    await opened(tab, url, together.tenant.key, f"#/jobs/{job}")
    await tab.until("document.body.innerText.includes('its data is at Together only')")
    done = "document.querySelector('.progress-card .done').textContent"
    await tab.until(f"/^step [0-9]+$/.test({done})")
    assert "%" not in await tab.evaluate("document.querySelector('.progress-card').innerText")
    assert not await tab.evaluate("document.querySelector('progress').hasAttribute('value')")
    tab.assert_stayed_home(url)


@pytest.mark.parametrize("width", [380, 1360])
async def test_the_providers_page_tells_what_each_can_do_and_what_ends(
    tab: Tab, openai: Stage, worker_database: Database, database_url: str, width: int
) -> None:
    await tab.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=800, deviceScaleFactor=1, mobile=False,
    )  # fmt: skip
    credential = (await openai.connect())["id"]
    await openai.submit(name="far away")
    url = openai.api.url
    await opened(tab, url, openai.tenant.key)
    await tab.evaluate("document.querySelector('.lt-header [href=\"#/providers\"]').click()")
    told = await tab.until(f"{card('OPENAI')}.includes('accepted') && {card('OPENAI')}")
    assert "pause, resume" in told
    assert "webhooks have no secret here yet" in told
    assert "no credential" in await tab.evaluate(card("TOGETHER"))
    assert "cannot\npause, resume" in await tab.evaluate(card("TOGETHER"))
    assert await tab.evaluate("document.querySelectorAll('.place').length") == 7
    assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth")

    tuned, soon = "ft:gpt-4o-mini:acme::1", clock.now().date() + timedelta(days=20)
    org = openai.tenant.actor.org_id
    async with worker_database.transaction(org) as session:
        query = select(ProviderCredential).where(ProviderCredential.id == credential)
        row = (await session.exec(query)).one()
        await radar.take_in(session, row, [Listed(tuned, soon)], [], [tuned])
    ending = "[...document.querySelectorAll('[data-provider=OPENAI] .ending li')]"
    found = f"{ending}.find(one => one.textContent.includes('{tuned}'))?.innerText"
    assert "in 20 days" in await tab.until(found)
    await as_owner(database_url, DENIED, id=credential)
    await tab.evaluate("location.hash = '#/'")
    await tab.until("!document.querySelector('.places')")
    await tab.evaluate("location.hash = '#/providers'")
    await tab.until(f"{card('OPENAI')}.includes('The key was revoked.')")
    assert "credential refused" in await tab.evaluate(card("OPENAI"))

    await tab.evaluate("document.querySelector('[data-provider=OPENAI] .facts a').click()")
    await tab.until(f"location.hash === '#/' && {NAMES}.join() === 'far away'")
    assert await tab.evaluate("document.querySelector('.filters select').value") == "OPENAI"
    tab.assert_stayed_home(url)
