"""The dashboard in a real browser, on a real server; a worker's side of a job is made directly."""

import re
from pathlib import Path

import httpx
import pytest

from app.core.database import Database
from app.jobs.states import JobStatus
from tests.jobs import work
from tests.support import Api, Tenant
from tests.web.browser import Tab
from tests.web.training import TOTAL, finish, report, running
from tests.web.wire import wire

STATIC = Path(__file__).parents[2] / "app" / "web" / "static" / "dashboard"
ACCEPTED = "document.querySelector('.lt-key')?.dataset.verdict === 'accepted'"
LIVE = "!!document.querySelector('.lt-stream.lt-live')"
NAMES = "[...document.querySelectorAll('.jobs .name')].map(n => n.textContent)"
STATUS = "document.querySelector('.title .badge')?.textContent"
EVENTS = "[...document.querySelectorAll('.log .message')].map(n => n.textContent)"
CURVE = "(document.querySelector('path.raw')?.getAttribute('d') ?? '')"
POINTS = f"{CURVE}.split(/[ML]/).length - 1"


def tile(name: str) -> str:
    return f"document.querySelector('.tile.{name} strong').textContent"


async def opened(tab: Tab, url: str, key: str, place: str = "") -> None:
    await tab.open(f"{url}/#key={key}")
    await tab.until(f"{ACCEPTED} && {LIVE}")
    await tab.evaluate(f"location.hash = '{place}'")


async def pressed(tab: Tab, selector: str, label: str) -> None:
    """Click the button with this label, once it can be."""
    buttons = f"[...document.querySelectorAll('{selector} button')]"
    button = f"{buttons}.find(b => b.textContent === '{label}' && !b.disabled)"
    await tab.until(f"!!{button}")
    await tab.evaluate(f"{button}.click()")


async def test_the_key_moves_into_the_session_and_serves_graphiql_too(
    tab: Tab, server: str, tenant: Tenant
) -> None:
    await opened(tab, server, tenant.key)
    assert await tab.evaluate("location.href") == f"{server}/"
    assert await tab.evaluate("sessionStorage.getItem('luthier.apiKey')") == tenant.key
    assert await tab.evaluate("document.cookie + localStorage.length") == "0"
    assert tenant.key not in await tab.evaluate("document.documentElement.outerHTML")
    assert not any(tenant.key in url for url in [*tab.requests, *tab.sockets])
    assert tab.sockets == [server.replace("http", "ws") + "/graphql"]

    await tab.click(".lt-header a[href='/graphql']")
    await tab.until(f"location.pathname === '/graphql' && {ACCEPTED}")
    await tab.click(".lt-header .lt-link")
    await tab.until(f"location.pathname === '/' && {ACCEPTED} && {LIVE}")
    tab.assert_stayed_home(server)


async def test_without_a_key_it_asks_and_it_can_forget(
    tab: Tab, server: str, tenant: Tenant
) -> None:
    await tab.open(server)
    await tab.until("!document.querySelector('.lt-bar').hidden")
    assert not any(url.endswith("/graphql") for url in tab.requests), "asked without a key"
    await tab.click("#lt-key-input")
    await tab.type("lt_wrong_key_0000")
    await tab.click(".lt-bar button")
    await tab.until("document.querySelector('.lt-key').dataset.verdict === 'refused'")
    await tab.click("#lt-key-input")
    await tab.type(f" {tenant.key} ")
    await tab.click(".lt-bar button")
    await tab.until(f"{ACCEPTED} && {LIVE} && document.querySelector('.lt-bar').hidden")
    await tab.click(".lt-key button")
    await tab.until("!document.querySelector('.lt-bar').hidden && !document.querySelector('.jobs')")
    assert await tab.evaluate("sessionStorage.length") == 0


async def test_a_job_submitted_elsewhere_appears_and_is_counted(
    tab: Tab, server: str, tenant: Tenant, api: Api
) -> None:
    await opened(tab, server, tenant.key)
    await tab.until("document.querySelector('.empty') && !document.querySelector('.empty').hidden")
    assert "jobs submit" in await tab.evaluate("document.querySelector('.empty').innerText")

    first = await api.job_id(name="first <b>job</b>")
    await tab.until(f"{NAMES}.join() === 'first <b>job</b>' && {tile('queued')} === '1'")
    await api.job_id(name="second")
    await tab.until(f"{NAMES}.join() === 'second,first <b>job</b>' && {tile('queued')} === '2'")

    await tab.click(".tile.queued")
    await tab.until("document.querySelector('.tile.queued').ariaPressed === 'true'")
    assert (await api.act("cancelJob", first))["userErrors"] == []
    await tab.until(f"{NAMES}.join() === 'second' && {tile('queued')} === '1'")
    await tab.click(".filters input")
    await tab.type("no such name")
    await tab.until("document.querySelector('.list .nothing').textContent === 'No job matches.'")
    tab.assert_stayed_home(server)


async def test_a_running_job_is_drawn_live_until_it_has_a_model(
    tab: Tab, server: str, tenant: Tenant, api: Api, worker_database: Database, database_url: str
) -> None:
    job = await api.job_id(name="falling")
    claim = await running(worker_database, database_url, job)
    await report(worker_database, claim, range(1, 11))
    await opened(tab, server, tenant.key, f"#/jobs/{job}")
    await tab.until(f"{STATUS} === 'running' && {POINTS} === 10")
    assert "1,234" in await tab.evaluate("document.querySelector('.figures').innerText")

    await report(worker_database, claim, range(11, 31))
    await work.save(worker_database, claim, 20)
    await tab.until(f"{POINTS} === 30 && {EVENTS}.includes('Checkpoint saved at step 20.')")
    await tab.until("document.querySelectorAll('.marks g').length === 1")
    heights = await tab.evaluate(f"{CURVE}.split(/[ML]/).slice(1).map(p => +p.split(' ')[1])")
    assert heights == sorted(heights), "the loss falls, so each point lies lower than the last"
    assert await tab.evaluate("document.querySelectorAll('.dots circle').length") == 3
    await tab.until("document.querySelector('.progress-card .done').textContent.startsWith('75 %')")

    await report(worker_database, claim, range(31, TOTAL + 1))
    await finish(worker_database, claim, await api.upload("step,training_loss\n"))
    await tab.until(f"{STATUS} === 'succeeded' && {POINTS} === {TOTAL}")
    await tab.until("document.querySelector('.deploy > header button')?.textContent === 'Deploy'")
    await pressed(tab, ".deploy", "Deploy")
    await tab.until("document.querySelector('.deploy .badge').textContent === 'pending'")

    await tab.evaluate("history.back()")
    await tab.until("!document.querySelector('.detail')")
    tab.assert_stayed_home(server)


async def test_after_a_break_it_goes_on_without_gap_or_repeat(
    tab: Tab, server: str, tenant: Tenant, api: Api, worker_database: Database, database_url: str
) -> None:
    job = await api.job_id(name="broken off")
    claim = await running(worker_database, database_url, job)
    async with wire(server) as line:
        await opened(tab, line.url, tenant.key, f"#/jobs/{job}")
        await tab.sent("jobMetrics")
        await report(worker_database, claim, range(1, 6))
        await tab.until(f"{POINTS} === 5")
        line.cut()
        await tab.until("!!document.querySelector('.lt-stream.lt-reconnecting')")
        await report(worker_database, claim, range(6, 21))
        await work.save(worker_database, claim, 20)
        other = await api.job_id(name="submitted meanwhile")
        line.mend()
        await tab.until(f"{LIVE} && {POINTS} === 20", timeout=15)
        await report(worker_database, claim, range(21, 26))
        await work.end(worker_database, claim, JobStatus.CANCELLED)
        await tab.until(f"{POINTS} === 25 && {STATUS} === 'cancelled'")
        await tab.until(f"{EVENTS}.at(-1) === 'running → cancelled'")
        messages = await tab.evaluate(EVENTS)
        assert len(messages) == len(set(messages)), "an event came twice"
        assert "Checkpoint saved at step 20." in messages
        await tab.until(f"{NAMES}.includes('submitted meanwhile')")
        resumed = [frame for frame in tab.frames if "jobMetrics" in frame]
        first, *_, last = (int(re.findall(r'"after":"s(\d+)"', frame)[0]) for frame in resumed)
        assert last == first + 5, "it asked again for what it had, or skipped something"
        assert len(tab.sockets) >= 2
    await api.act("cancelJob", other)


async def test_wishes_are_sent_confirmed_and_refused_in_words(
    tab: Tab, server: str, tenant: Tenant, api: Api
) -> None:
    job = await api.job_id(name="wishes")
    await opened(tab, server, tenant.key, f"#/jobs/{job}")
    await pressed(tab, ".actions", "Pause")
    await tab.until(f"{STATUS} === 'paused'")
    await pressed(tab, ".actions", "Resume")
    await tab.until(f"{STATUS} === 'queued'")
    await pressed(tab, ".actions", "Cancel")
    await pressed(tab, "dialog", "Keep it")
    await tab.until("!document.querySelector('dialog')")
    await pressed(tab, ".actions", "Cancel")
    await pressed(tab, "dialog", "Cancel the job")
    await tab.until(f"{STATUS} === 'cancelled'")
    await pressed(tab, ".actions", "Restart")
    await api.act("restartJob", job)
    await pressed(tab, "dialog", "Restart")
    await tab.until("document.querySelector('.actions .error')?.textContent.includes('only a')")
    await api.act("cancelJob", job)
    await tab.until(f"{STATUS} === 'cancelled'")
    tab.assert_stayed_home(server)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_follows_the_system_and_fits_a_telephone(
    tab: Tab, server: str, tenant: Tenant, api: Api, scheme: str
) -> None:
    job = await api.job_id(name="a name that is rather long for a telephone " * 3)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    await tab.call("Emulation.setEmulatedMedia", features=media)
    await tab.call(
        "Emulation.setDeviceMetricsOverride",
        width=380, height=800, deviceScaleFactor=1, mobile=False,
    )  # fmt: skip
    await opened(tab, server, tenant.key)
    fits = "document.documentElement.scrollWidth <= innerWidth"
    await tab.until(f"{NAMES}.length === 1 && {fits}")
    await tab.evaluate(f"location.hash = '#/jobs/{job}'")
    await tab.until(f"{STATUS} === 'pending' && {fits}")
    for place in (".lt-header", "body", ".card"):
        colour = await tab.evaluate(
            f"getComputedStyle(document.querySelector('{place}')).backgroundColor"
        )
        red = int(re.findall(r"\d+", colour)[0])
        assert (red > 200) == (scheme == "light"), f"{place} is {colour}"
    await api.act("cancelJob", job)


async def test_a_key_that_only_reads_sees_no_buttons_and_its_end_is_noticed(
    tab: Tab, server: str, tenant: Tenant, api: Api
) -> None:
    job = await api.job_id(name="looked at")
    answer = await api.execute(
        'mutation { createApiKey(input: {name: "reader", scopes: [FINE_TUNING_READ]})'
        " { secret apiKey { id } } }"
    )
    made = answer["createApiKey"]
    async with wire(server) as line:
        await opened(tab, line.url, made["secret"], f"#/jobs/{job}")
        await tab.until(
            f"!!document.querySelector('.lt-org').textContent && {STATUS} === 'pending'"
        )
        assert await tab.evaluate("document.querySelectorAll('.actions button').length") == 0
        line.cut()
        await api.execute(
            "mutation ($id: ID!) { revokeApiKey(input: {id: $id}) { userErrors { message } } }",
            id=made["apiKey"]["id"],
        )
        line.mend()
        await tab.until("document.querySelector('.lt-key').dataset.verdict === 'refused'")
        await tab.until(
            "!document.querySelector('.lt-bar').hidden && !document.querySelector('h1')"
        )
    await api.act("cancelJob", job)


async def test_the_page_is_strict_and_small(server: str) -> None:
    async with httpx.AsyncClient(base_url=server, trust_env=False) as client:
        page = await client.get("/")
        rules = page.headers["content-security-policy"]
        assert "default-src 'self'" in rules
        assert "unsafe" not in rules
        assert "require-trusted-types-for 'script'" in rules
        assert "set-cookie" not in page.headers
        assert "style=" not in page.text
        assert re.findall(r"<script[^>]*>([^<]*)</script>", page.text) == [""]
        names = re.findall(r'="(/static/[^"]+)"', page.text)
        assert len(names) > 10
        for name in names:
            found = await client.get(name)
            assert found.status_code == 200, name
            assert found.headers["cache-control"] == "no-cache"
    for file in STATIC.iterdir():
        assert len(file.read_text().splitlines()) < 300, file.name
        assert "innerHTML" not in file.read_text()
