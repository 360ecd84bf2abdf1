"""The example client in a real browser, on a page of another origin."""

import asyncio
import functools
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.core.settings import Settings
from app.jobs.states import JobStatus
from tests.api.live import Story, serving
from tests.clients.conftest import EXAMPLES
from tests.clients.cutting import cutting
from tests.clients.script import Node
from tests.support import Tenant
from tests.web.browser import browser, find_chromium

STRIP = "console.log(require('node:module').stripTypeScriptTypes(fs.readFileSync(0, 'utf8')))"
WATCH = """(async () => {
  const { luthier } = await import('/luthier.js');
  const { query, subscribe } = luthier({ url: '%s/graphql', apiKey: '%s' });
  const jobId = '%s';
  window.seen = [];
  const { job } = await query('query ($i: ID!) { job(id: $i) { id } }', { i: jobId });
  const events = subscribe(
    `subscription ($j: ID!, $after: String) { jobEvents(jobId: $j, after: $after) { cursor } }`,
    { j: job.id }, { after: '0' });
  for await (const { jobEvents } of events) window.seen.push(jobEvents.cursor);
  window.seen.push('complete');
})().catch((error) => { window.seen.push(String(error)); })
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def page(node: Node, tmp_path: Path) -> Iterator[str]:
    """The origin of a page that can load the client, as any bundler would have made it."""
    text = (EXAMPLES / "luthier.ts").read_bytes()
    [program], _ = node
    made = subprocess.run(
        [program, "--no-warnings", "--eval", STRIP], input=text, capture_output=True, check=True
    )
    (tmp_path / "luthier.js").write_bytes(made.stdout)
    (tmp_path / "index.html").write_text("<!doctype html><title>A page</title>")
    handler = functools.partial(_Quiet, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_a_page_watches_through_cut_connections(
    page: str, settings: Settings, database_url: str, story: Story, tenant: Tenant
) -> None:
    find_chromium()
    await story.say(5)
    allowing = settings.model_copy(update={"allowed_origins": [page]})
    async with (
        serving(allowing, database_url) as live,
        cutting(live.url) as (url, way),
        browser() as tab,
    ):
        await tab.open(page)
        await tab.until("document.title === 'A page'")
        watching = asyncio.create_task(tab.evaluate(WATCH % (url, tenant.key, story.id)))
        await tab.until("window.seen?.length === 5")
        way.cut()
        await story.say(2)
        await story.becomes(JobStatus.SUCCEEDED)
        await tab.until("window.seen.at(-1) === 'complete'")
        await watching
        assert await tab.evaluate("window.seen") == [*[f"s{n}" for n in range(1, 9)], "complete"]
    assert way.opened > 1
