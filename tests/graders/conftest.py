"""The graders' process, as the worker starts it."""

from collections.abc import AsyncIterator

import pytest

from app.graders.client import Graders


@pytest.fixture(scope="session")
async def graders() -> AsyncIterator[Graders]:
    """One for the tests that need nothing special of it."""
    running = Graders()
    yield running
    await running.close()
