"""Where else a job is shown: what is taken, what is refused, and that a rerun keeps it."""

from typing import Any

import pytest

from tests.support import Api

SHOWN = "query ($j: ID!) { job(id: $j) { integrations { wandb { project entity name tags } } } }"


async def test_a_job_says_where_else_it_is_shown(api: Api) -> None:
    wandb = {"project": "support tickets", "entity": "team", "name": "first", "tags": ["blue"]}
    job = await api.job_id(integrations=[{"wandb": wandb}, {"wandb": {"project": "other"}}])
    shown = (await api.execute(SHOWN, j=job))["job"]["integrations"]
    assert shown == [
        {"wandb": wandb},
        {"wandb": {"project": "other", "entity": None, "name": None, "tags": []}},
    ]
    plain = await api.job_id()
    assert (await api.execute(SHOWN, j=plain))["job"]["integrations"] == []

    assert (await api.act("cancelJob", job))["userErrors"] == []
    again = await api.execute(
        "mutation ($j: ID!) { rerunJob(input: {id: $j}) { job { id } } }", j=job
    )
    assert (await api.execute(SHOWN, j=again["rerunJob"]["job"]["id"]))["job"] == {
        "integrations": shown
    }


@pytest.mark.parametrize(
    ("integrations", "path"),
    [
        ([{"wandb": {"project": ""}}], ["integrations", "0", "wandb", "project"]),
        ([{"wandb": {"project": "a/b"}}], ["integrations", "0", "wandb", "project"]),
        ([{"wandb": {"project": "a", "tags": ["x" * 65]}}], ["integrations", "0", "wandb", "tags"]),
        ([{"wandb": {"project": "a"}}] * 2, ["integrations"]),
        ([{"wandb": {"project": f"p{n}"}} for n in range(6)], ["integrations"]),
    ],
)
async def test_what_the_service_would_refuse_is_refused_now(
    api: Api, integrations: list[Any], path: list[str]
) -> None:
    payload = await api.submit(integrations=integrations)
    assert payload["job"] is None
    [error] = payload["userErrors"]
    assert error["path"][: len(path)] == path
