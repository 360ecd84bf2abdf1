"""A project's access to providers: set, shown without its secrets, opened for use, removed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import audit
from app.accounts.errors import CredentialNotFound
from app.accounts.tables import ProviderCredential
from app.attempts import queue
from app.core import clock, ids
from app.core.actor import Actor, Role, Scope
from app.core.vault import CannotOpen, Sealed, Vault
from app.events import log
from app.providers.base import Account

_OLD_WEBHOOK_SECRET_LIVES = timedelta(hours=24)
_FIND = text("SELECT * FROM find_webhook_endpoint(:id)")
_COUNT = text(
    "UPDATE provider_credentials SET refused_webhooks = refused_webhooks + :n"
    " WHERE org_id = :org AND id = :id"
)


@dataclass(frozen=True)
class NewCredential:
    """As it was found good. `webhook_secret` None: the one before stays."""

    provider: str
    account: Account
    webhook_secret: str | None = None


@dataclass(frozen=True)
class WebhookEndpoint:
    """Where a provider's webhooks come in; `secrets` are those that may have signed now."""

    org_id: str
    credential_id: str
    provider: str
    secrets: tuple[str, ...]


async def set_credential(
    session: AsyncSession, actor: Actor, vault: Vault, new: NewCredential
) -> ProviderCredential:
    """Store it for the actor's project, in the place of the one before. What waits for a
    credential goes on at once."""
    actor.require(Scope.ADMIN, Role.ADMIN)
    now = clock.now()
    row = await of_project(session, actor.org_id, actor.project_id, new.provider)
    before = _shown(row) if row else None
    if row is None:
        row = ProviderCredential(
            org_id=actor.org_id,
            id=ids.new(ids.CREDENTIAL),
            project_id=actor.project_id,
            provider=new.provider,
            secrets=b"",
            hint="",
            key_version=vault.newest,
            status="unchecked",
            created_at=now,
            updated_at=now,
        )
        await log.open_stream(session, actor.org_id, row.id)
        await queue.open_attempt(session, actor.org_id, row.id, [queue.PROVIDER])
        webhook_secrets: list[dict[str, Any]] = []
    else:
        try:
            webhook_secrets = _webhook_secrets(vault, row)
        except CannotOpen:  # its master key is gone, and so is what it sealed
            webhook_secrets = []
    if new.webhook_secret:
        until = (now + _OLD_WEBHOOK_SECRET_LIVES).isoformat()
        kept = [{**one, "until": one["until"] or until} for one in webhook_secrets]
        webhook_secrets = [{"secret": new.webhook_secret, "until": None}, *kept]
    row.settings = dict(new.account.settings)
    row.hint = _hint(new.account.secrets)
    row.status, row.trouble, row.checked_at, row.updated_at = "ok", None, now, now
    _seal(vault, row, dict(new.account.secrets), webhook_secrets)
    session.add(row)
    await session.flush()
    audit.record(session, actor, "credential.set", row.id, before=before, after=_shown(row))
    await queue.nudge(session, actor.org_id, [row.id], "credential")
    return row


async def remove_credential(
    session: AsyncSession, actor: Actor, provider: str
) -> ProviderCredential:
    """Forget its secrets for good. Jobs at the provider go on there, unseen."""
    actor.require(Scope.ADMIN, Role.ADMIN)
    row = await of_project(session, actor.org_id, actor.project_id, provider)
    if row is None:
        raise CredentialNotFound(
            f"This project has no credential for {provider}.", path=("provider",)
        )
    now = clock.now()
    row.secrets, row.webhook_secrets, row.hint = b"", None, ""
    row.removed_at = row.updated_at = now
    session.add(row)
    audit.record(session, actor, "credential.removed", row.id, before=_shown(row))
    attempt = await queue.current(session, actor.org_id, row.id)
    if attempt is not None:
        queue.finish(attempt, "removed")
        await log.fence(session, row.id)
    return row


async def credentials(session: AsyncSession, actor: Actor) -> list[ProviderCredential]:
    """Those of the actor's project, without anything secret that could be opened."""
    actor.require(Scope.READ)
    query = select(ProviderCredential).where(
        ProviderCredential.org_id == actor.org_id,
        ProviderCredential.project_id == actor.project_id,
        col(ProviderCredential.removed_at).is_(None),
    )
    return list(await session.exec(query.order_by(col(ProviderCredential.provider))))


async def of_project(
    session: AsyncSession, org_id: str, project_id: str, provider: str
) -> ProviderCredential | None:
    query = select(ProviderCredential).where(
        ProviderCredential.org_id == org_id,
        ProviderCredential.project_id == project_id,
        ProviderCredential.provider == provider,
        col(ProviderCredential.removed_at).is_(None),
    )
    return (await session.exec(query)).first()


def opened(vault: Vault, row: ProviderCredential) -> Account:
    """Raises CannotOpen."""
    sealed = Sealed(row.key_version, row.secrets)
    return Account(orjson.loads(vault.open(sealed, _place(row, "secrets"))), dict(row.settings))


def reseal(vault: Vault, row: ProviderCredential) -> bool:
    """Seal it with the newest master key. False: it is already."""
    if row.key_version == vault.newest:
        return False
    _seal(vault, row, dict(opened(vault, row).secrets), _webhook_secrets(vault, row))
    return True


async def find_endpoint(session: AsyncSession, vault: Vault, id: str) -> WebhookEndpoint | None:
    """Across tenants (a door): who a webhook is for. Raises CannotOpen."""
    row = (await (await session.connection()).execute(_FIND, {"id": id})).first()
    if row is None or row.webhook_secrets is None:
        return None
    sealed = Sealed(row.key_version, row.webhook_secrets)
    listed = orjson.loads(vault.open(sealed, f"{row.org_id}|{id}|webhooks"))
    now = clock.now()
    living = [
        one["secret"]
        for one in listed
        if one["until"] is None or datetime.fromisoformat(one["until"]) > now
    ]
    return WebhookEndpoint(row.org_id, id, row.provider, tuple(living))


async def count_refused(session: AsyncSession, org_id: str, id: str, number: int) -> None:
    await (await session.connection()).execute(_COUNT, {"org": org_id, "id": id, "n": number})


def _seal(
    vault: Vault,
    row: ProviderCredential,
    secrets: Mapping[str, str],
    webhook_secrets: Sequence[Mapping[str, Any]],
) -> None:
    row.key_version = vault.newest
    row.secrets = vault.seal(orjson.dumps(dict(secrets)), _place(row, "secrets")).data
    row.webhook_secrets = None
    if webhook_secrets:
        listed = orjson.dumps(list(webhook_secrets))
        row.webhook_secrets = vault.seal(listed, _place(row, "webhooks")).data


def _webhook_secrets(vault: Vault, row: ProviderCredential) -> list[dict[str, Any]]:
    """Those that have not run out, the newest first."""
    if row.webhook_secrets is None:
        return []
    sealed = Sealed(row.key_version, row.webhook_secrets)
    listed: list[dict[str, Any]] = orjson.loads(vault.open(sealed, _place(row, "webhooks")))
    now = clock.now().isoformat()
    return [one for one in listed if one["until"] is None or one["until"] > now]


def _place(row: ProviderCredential, kind: str) -> str:
    return f"{row.org_id}|{row.id}|{kind}"


def _hint(secrets: Mapping[str, str]) -> str:
    """The end of the first secret, by which people tell keys apart; of a short one nothing."""
    first = next(iter(secrets.values()), "")
    return f"…{first[-4:]}" if re.fullmatch(r"[\w.\-]{20,}", first) else "…"


def _shown(row: ProviderCredential) -> dict[str, Any]:
    return {"provider": row.provider, "settings": row.settings, "hint": row.hint}
