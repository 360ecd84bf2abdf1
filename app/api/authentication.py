"""Who asks, from the headers: `X-API-Key` or `Authorization: Bearer`."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.accounts import keys
from app.accounts import service as accounts
from app.accounts.errors import KeyMissing
from app.api.graphql.context import Services
from app.attempts import tokens
from app.core.actor import Actor


def new_request_id() -> str:
    return f"req_{secrets.token_hex(8)}"


def key_of_headers(headers: Mapping[str, str]) -> str | None:
    return headers.get("x-api-key") or _bearer(headers.get("authorization"))


async def actor_of_headers(
    services: Services, headers: Mapping[str, str], request_id: str
) -> Actor:
    """Raises KeyMissing, KeyUnknown, KeyExpired or KeyRevoked."""
    return await actor_of_key(services, key_of_headers(headers), request_id)


async def caller_of_headers(
    services: Services, headers: Mapping[str, str], request_id: str
) -> Actor:
    """Who calls a model: whoever has a key, or an attempt whose graders ask one. Raises what
    `actor_of_headers` does, and Unauthenticated."""
    token = (key_of_headers(headers) or "").strip()
    if token.startswith(tokens.PREFIX):
        return await tokens.authenticate(services.database, services.master_key, token, request_id)
    return await actor_of_headers(services, headers, request_id)


def key_of_params(params: Any) -> str | None:
    """The key in `connection_init`'s payload: `{"apiKey": …}` or `{"authorization": …}`."""
    given = params if isinstance(params, dict) else {}
    key = given.get("apiKey") or given.get("X-API-Key")
    if key is None:
        key = _bearer(given.get("authorization") or given.get("Authorization"))
    return key.strip() if isinstance(key, str) else None


async def actor_of_key(services: Services, key: str | None, request_id: str) -> Actor:
    if not key:
        raise KeyMissing(
            "An API key is needed: send it as X-API-Key or Authorization: Bearer, or as apiKey in "
            "connection_init. The first one is in the file owner-key of the data folder."
        )
    key = key.strip()
    actor = services.keys.get(keys.hashed(key, services.pepper))
    if actor is None:
        actor = await verified(services, key, request_id)
    return replace(actor, request_id=request_id)


async def verified(services: Services, key: str, request_id: str) -> Actor:
    """What the database says of a key now, remembered for a moment. Raises what it refuses with."""
    return await services.keys.ask(
        keys.hashed(key, services.pepper),
        lambda: accounts.authenticate(services.database, services.pepper, key, request_id),
    )


def _bearer(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    kind, _, token = value.partition(" ")
    return token.strip() if kind.lower() == "bearer" else None
