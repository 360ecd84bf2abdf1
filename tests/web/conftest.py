"""The stand-in service and the browser, one of each per test: both keep state."""

from collections.abc import AsyncIterator

import pytest

from tests.web.browser import Tab, browser, find_chromium
from tests.web.stand_in import StandIn, stand_in


@pytest.fixture
async def service() -> AsyncIterator[StandIn]:
    async with stand_in() as running:
        yield running


@pytest.fixture
async def tab() -> AsyncIterator[Tab]:
    find_chromium()
    async with browser() as page:
        yield page
