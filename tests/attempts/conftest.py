"""A tenant's organization, and a kind of work that only this test does."""

import secrets

import pytest

from tests.support import Tenant


@pytest.fixture
def org(tenant: Tenant) -> str:
    return tenant.actor.org_id


@pytest.fixture
def kind() -> str:
    """Workers of other tests ask for other kinds."""
    return f"kind{secrets.token_hex(4)}"
