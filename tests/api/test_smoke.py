"""The API answers at all."""

from tests.support import Api


async def test_the_viewer_is_the_keys_member(api: Api) -> None:
    data = await api.execute("{ viewer { role organization { id } } jobs { totalCount } }")
    assert data["viewer"]["role"] == "OWNER"
    assert data["jobs"]["totalCount"] == 0


async def test_a_submitted_job_is_listed_and_streamed(api: Api) -> None:
    job = await api.job_id(suffix="first")
    async with api.subscribe(
        'subscription ($j: ID!) { jobEvents(jobId: $j, after: "0") { type cursor } }', j=job
    ) as events:
        first = await anext(events)
    assert first["jobEvents"]["type"] in ("STATUS", "MESSAGE")
    data = await api.execute("{ jobs { nodes { id status } } }")
    assert data["jobs"]["nodes"] == [{"id": job, "status": "PENDING"}]
