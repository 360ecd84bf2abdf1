"""Pages of other origins: those that the settings list may use the API from a browser."""

import httpx
import pytest

from app.core.settings import Settings
from tests.api.live import serving
from tests.support import Api, Tenant

PAGE = "http://localhost:5173"
ASK = {"query": "{ viewer { role } }"}


async def test_a_page_that_is_listed_may_ask(
    settings: Settings, database_url: str, tenant: Tenant
) -> None:
    allowing = settings.model_copy(update={"allowed_origins": [PAGE]})
    async with serving(allowing, database_url) as live, Api(live.url, tenant.key) as api:
        first = await api.http.options(
            "/graphql",
            headers={
                "origin": PAGE,
                "access-control-request-method": "POST",
                "access-control-request-headers": "content-type,x-api-key",
            },
        )
        assert first.status_code == 200
        assert first.headers["access-control-allow-origin"] == PAGE
        answer = await api.http.post("/graphql", json=ASK, headers={"origin": PAGE})
        assert answer.json()["data"] == {"viewer": {"role": "OWNER"}}
        assert answer.headers["access-control-allow-origin"] == PAGE
        other = await api.http.post("/graphql", json=ASK, headers={"origin": "http://evil.test"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
async def test_no_other_page_may_read_answers(api: Api, method: str) -> None:
    headers = {"origin": PAGE, "access-control-request-method": "POST"}
    answer: httpx.Response = await api.http.request(method, "/graphql", json=ASK, headers=headers)
    assert "access-control-allow-origin" not in answer.headers
