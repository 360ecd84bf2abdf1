"""The scores of a job's checkpoints in the dashboard, below the loss, as they come."""

import os
from pathlib import Path

from app.core import clock
from app.core.database import Database
from app.jobs import scores
from tests.jobs import work
from tests.support import Api, Tenant, item_lines
from tests.web.browser import Tab
from tests.web.test_dashboard import EVENTS, POINTS, opened
from tests.web.training import report, running

GRADER = {
    "stringCheck": {
        "name": "check",
        "input": "{{ sample.output_text }}",
        "reference": "{{ item.word }}",
        "operation": "LIKE",
    }
}
DOTS = "document.querySelectorAll('.scores circle').length"
HIDDEN = "document.querySelector('.score-chart').hidden"


async def test_scores_are_drawn_below_the_loss_and_the_best_is_told(
    tab: Tab, server: str, tenant: Tenant, api: Api, worker_database: Database, database_url: str
) -> None:
    data = await api.dataset_version(item_lines(4, "held"))
    graders = [{"name": "check", "grader": GRADER}]
    job = await api.job_id(name="judged", evaluation={"graders": graders, "data": data})
    claim = await running(worker_database, database_url, job)
    await report(worker_database, claim, range(1, 11))
    await opened(tab, server, tenant.key, f"#/jobs/{job}")
    await tab.until(f"{POINTS} === 10 && {HIDDEN}")

    for step, score in ((10, 0.4), (20, 0.7), (30, 0.6)):
        await report(worker_database, claim, range(step - 9, step + 1))
        await work.save(worker_database, claim, step)
        said = {
            "score": score,
            "graders": [{"name": "check", "score": score, "errors": 0}],
            "cases": 4,
            "errors": 0,
            "seconds": 0.5,
            "samples": [],
            "reason": None,
        }
        async with worker_database.transaction(claim.org_id) as session:
            await scores.add(session, claim, step, clock.now(), said)
    await tab.until(f"{POINTS} === 30 && {DOTS} === 3 && !{HIDDEN}")
    best = "document.querySelector('.score-chart .best').textContent"
    await tab.until(f"{best} === 'Best: 0.7000 at step 20'")
    await tab.until(f"{EVENTS}.some(one => one.startsWith('Score at step 20: 0.7'))")
    heights = await tab.evaluate(
        "[...document.querySelectorAll('.scores circle')].map(dot => +dot.getAttribute('cy'))"
    )
    assert heights[1] == min(heights)
    table = "[...document.querySelectorAll('table')].map(one => one.innerText).join()"
    await tab.until(f"{table}.includes('Score') && {table}.includes('0.7000')")
    if folder := os.environ.get("LUTHIER_TEST_PICTURES"):
        await tab.call(
            "Emulation.setDeviceMetricsOverride",
            width=1360, height=1500, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        await tab.until(f"{DOTS} === 3")
        await tab.screenshot(Path(folder) / "scores.png")
    tab.assert_stayed_home(server)
    await api.act("cancelJob", job)
