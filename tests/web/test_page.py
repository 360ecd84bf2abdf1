"""The GraphiQL page in a real browser, against a small service of our own."""

import pytest

from tests.web.browser import Tab, find_chromium
from tests.web.stand_in import KEY, StandIn

RUN = ".graphiql-execute-button"
NEW_TAB = "button[aria-label='New tab']"
VERDICT = "document.querySelector('.lt-key')?.dataset.verdict"
READY = "document.querySelectorAll('.graphiql-editor .view-line').length > 5"
SHOWN = (
    "[...document.querySelectorAll('.graphiql-response .view-line')]"
    ".map(l => l.textContent).join('').replaceAll('\\u00a0', ' ')"
)
VARIABLES = (
    "[...document.querySelectorAll('.graphiql-editor-tool .view-line')]"
    ".map(l => l.textContent).join('').replaceAll('\\u00a0', ' ')"
)
NUMBER = f'Number(/"number": (\\d+)/.exec({SHOWN})?.[1] ?? 0)'


async def opened(tab: Tab, service: StandIn, fragment: str = f"#key={KEY}") -> None:
    await tab.open(f"{service.url}/graphql{fragment}")
    await tab.until(READY)


async def write(tab: Tab, query: str) -> None:
    """Into a new tab. The editor closes brackets itself, so the text goes in as one insertion."""
    await tab.click(NEW_TAB)
    await tab.click(".graphiql-query-editor .monaco-editor")
    await tab.type(query)


async def run(tab: Tab) -> None:
    await tab.until(f"!document.querySelector('{RUN}').disabled")
    await tab.click(RUN)


async def test_the_key_moves_from_the_fragment_into_the_session(tab: Tab, service: StandIn) -> None:
    await opened(tab, service)
    await tab.until(f"{VERDICT} === 'accepted'")
    assert await tab.evaluate("location.href") == f"{service.url}/graphql"
    assert await tab.evaluate("sessionStorage.getItem('luthier.apiKey')") == KEY
    assert await tab.evaluate("document.cookie") == ""
    assert await tab.evaluate("localStorage.length") == 0
    assert KEY not in await tab.evaluate("document.documentElement.outerHTML")
    assert KEY in [headers.get("X-API-Key") for headers in tab.headers]
    assert not any(KEY in url for url in tab.requests)
    tab.assert_stayed_home(service.url)


async def test_without_a_key_it_asks_and_can_forget(tab: Tab, service: StandIn) -> None:
    await opened(tab, service, fragment="")
    assert "owner-key" in await tab.evaluate("document.querySelector('.lt-bar').innerText")
    assert not any(url.endswith("/graphql") for url in tab.requests[1:]), "asked without a key"

    await tab.click("#lt-key-input")
    await tab.type("lt_wrong_key_0000")
    await tab.click(".lt-bar button")
    await tab.until(f"{VERDICT} === 'refused'")
    assert "did not accept" in await tab.evaluate("document.querySelector('.lt-bar').innerText")

    await tab.click("#lt-key-input")
    await tab.type(f"  {KEY}  ")
    await tab.click(".lt-bar button")
    await tab.until(f"{VERDICT} === 'accepted' && !document.querySelector('.lt-bar')")

    await tab.click(".lt-key button")
    await tab.until("!!document.querySelector('.lt-bar')")
    assert KEY not in await tab.evaluate("JSON.stringify({...sessionStorage})")
    tab.assert_stayed_home(service.url)


async def test_the_examples_are_the_first_tabs(tab: Tab, service: StandIn) -> None:
    await opened(tab, service)
    titles = await tab.evaluate(
        "[...document.querySelectorAll('.graphiql-tab-button')].map(b => b.textContent)"
    )
    assert titles == [
        "Start here: jobs and stats",
        "Submit a job",
        "Watch a job live",
        "Pause, resume, cancel",
        "Deploy a model",
    ]
    await tab.click("#graphiql-session-tab-2")
    await tab.until(f"{VARIABLES}.includes('<newest job>')")


async def test_a_query_runs_and_a_placeholder_is_looked_up(tab: Tab, service: StandIn) -> None:
    await opened(tab, service)
    await write(tab, "query Named($id: ID!) { job(id: $id) { id } }")
    await tab.click(".graphiql-editor-tool .monaco-editor")
    await tab.type('{"id": "<newest job>"}')
    await run(tab)
    await tab.until(f"{SHOWN}.includes('ftjob_newest')")
    await tab.until(f"{VARIABLES}.includes('ftjob_newest')")
    tab.assert_stayed_home(service.url)


async def test_the_header_editor_overrules_the_key(tab: Tab, service: StandIn) -> None:
    service.keys.add("lt_from_the_editor")
    await opened(tab, service)
    await write(tab, "query Hi { hello }")
    await tab.click("button[data-name=headers]")
    await tab.click("section[aria-label=Headers] .graphiql-editor:not(.hidden) .monaco-editor")
    await tab.type('{"X-API-Key": "lt_from_the_editor"}')
    await run(tab)
    await tab.until(f"{SHOWN}.includes('hello world')")
    assert await tab.evaluate("localStorage.length") == 0
    assert "lt_from_the_editor" in [headers.get("X-API-Key") for headers in tab.headers]


async def test_a_subscription_is_live_and_survives_a_restart(tab: Tab, service: StandIn) -> None:
    await opened(tab, service)
    fields = "count(after: $after) { cursor number }"
    await write(tab, f'subscription Live($after: String! = "0") {{ {fields} }}')
    await run(tab)
    await tab.until(f"{NUMBER} > 3")
    await tab.until("!!document.querySelector('.lt-stream.lt-live')")
    assert service.inits == [{"apiKey": KEY}]
    assert tab.sockets == [service.url.replace("http", "ws") + "/graphql"]

    before = await tab.evaluate(NUMBER)
    await service.drop_sockets()
    await tab.until("!!document.querySelector('.lt-reconnecting')", timeout=5)
    await tab.until(f"{NUMBER} > {before + 5}")
    assert len(service.inits) == 2
    resumed = [frame for frame in tab.frames if '"subscribe"' in frame][-1]
    assert '"after":"' in resumed, "it started over instead of going on behind the last message"

    await tab.click(RUN)  # now the stop button
    await tab.until("!document.querySelector('.lt-stream')")
    assert '"complete"' in tab.frames[-1]
    tab.assert_stayed_home(service.url)


async def test_a_refused_socket_says_so_once(tab: Tab, service: StandIn) -> None:
    await opened(tab, service)
    await tab.until(f"{VERDICT} === 'accepted'")
    service.keys.clear()
    await write(tab, "subscription Live { count { number } }")
    await run(tab)
    await tab.until(f"{SHOWN}.includes('4403')")
    await tab.until(f"{VERDICT} === 'refused'")
    assert len(tab.sockets) == 1, "it kept knocking"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_colours_follow_the_system(tab: Tab, service: StandIn, scheme: str) -> None:
    await tab.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-color-scheme", "value": scheme}],
    )
    await opened(tab, service)
    for selector in (".lt-header", ".graphiql-container"):
        colour = await tab.evaluate(
            f"getComputedStyle(document.querySelector('{selector}')).backgroundColor"
        )
        red = int(colour.split("(")[1].split(",")[0])
        assert (red > 200) == (scheme == "light"), f"{selector} is {colour}"
    assert await tab.evaluate("document.documentElement.clientWidth === innerWidth")


def test_under_ci_a_missing_browser_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("LUTHIER_TEST_CHROMIUM", raising=False)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no chromium found"):
        find_chromium()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="LUTHIER_TEST_CHROMIUM"):
        find_chromium()
