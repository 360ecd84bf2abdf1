"""A finished job's hardest cases on its page, in a real browser."""

from pathlib import Path

from app.core.database import Database
from app.jobs import examples
from app.training.report import Example, Examples
from tests.support import Api, Tenant, chat_line
from tests.web.browser import Tab
from tests.web.test_dashboard import STATUS, opened
from tests.web.training import TOTAL, finish, report, running

ROWS = "[...document.querySelectorAll('.examples tbody tr')].map(row => row.innerText)"


async def test_the_hardest_examples_are_shown_when_a_job_is_done(
    tab: Tab,
    server: str,
    tenant: Tenant,
    api: Api,
    worker_database: Database,
    database_url: str,
    tmp_path: Path,
) -> None:
    lines = [chat_line(f"Where is parcel {n}?", '{"queue": "shipping"}') for n in range(5)]
    lines += [lines[1], chat_line("Where is parcel 2?", "<b>zq9 xx</b>")]
    (tmp_path / "cases.jsonl").write_text("\n".join(lines))
    job = await api.job_id(trainingData=await api.dataset_version("\n".join(lines)))
    claim = await running(worker_database, database_url, job)
    await opened(tab, server, tenant.key, f"#/jobs/{job}")
    await report(worker_database, claim, range(1, TOTAL + 1))
    await tab.until(f"{STATUS} === 'running'")
    assert await tab.evaluate("document.querySelector('.examples').hidden")

    measured = [
        Example(split="training", line=line, loss=5 / (9 - line), tokens=9, truncated=line == 4)
        for line in range(1, 8)
    ]
    said = Examples(examples=measured, lines=7)
    content = examples.content(said, tmp_path / "cases.jsonl", None)
    await finish(worker_database, claim, await api.upload(content, examples.FILENAME))

    rows = await tab.until(f"{ROWS}.length === 7 && {ROWS}")
    assert rows[0].split("\t")[:2] == ["training 7", "2.5000"]
    assert "<b>zq9 xx</b>" in rows[0]
    assert "contradicts line 3" in rows[0]
    assert "duplicate of line 2" in rows[1]
    assert "truncated" in rows[3]
    tab.assert_stayed_home(server)
