"""The sunset radar: which models a provider lists, when they end, and what the ledger is told."""

from collections.abc import Iterable
from datetime import date

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts.tables import ProviderCredential, ProviderModel
from app.core import clock
from app.events import log
from app.events.log import NewEvent
from app.events.types import EventType
from app.providers.base import Listed, Offer

# How many days before its end a model is announced, each once.
_TELL = (90, 30, 7, 1, 0)
_MOST = 2_000


async def known(session: AsyncSession, org_id: str, credential_id: str) -> list[ProviderModel]:
    query = select(ProviderModel).where(
        ProviderModel.org_id == org_id, ProviderModel.credential_id == credential_id
    )
    return list(await session.exec(query))


async def take_in(
    session: AsyncSession,
    credential: ProviderCredential,
    listed: Iterable[Listed] | None,
    offers: Iterable[Offer],
    in_use: Iterable[str],
) -> None:
    """What the provider lists now (None: it has no list), what it is known to offer, and the
    models of the ledger there. News goes into the organization's stream."""
    now, today = clock.now(), clock.now().date()
    seen = {one.name: one.ends for one in list(listed or [])[:_MOST]}
    ends = {offer.name: offer.ends for offer in offers if offer.ends}
    watched = {*ends, *in_use}
    rows = {row.name: row for row in await known(session, credential.org_id, credential.id)}
    events = []
    for name in sorted({*seen, *watched}):
        row = rows.get(name)
        if row is None:
            row = ProviderModel(
                org_id=credential.org_id, credential_id=credential.id, name=name, seen_at=now
            )
        row.ends = seen.get(name) or ends.get(name) or row.ends
        if listed is None or name in seen:
            row.seen_at, row.gone_at = now, None
        elif row.gone_at is None and (name in rows or name in in_use):
            row.gone_at = now
            if name in watched:
                events.append(_event(credential, row, "gone", None))
        if row.ends is not None and name in watched:
            left = (row.ends - today).days
            due = min((days for days in _TELL if left <= days), default=None)
            if due is not None and (row.told_days is None or due < row.told_days):
                row.told_days = due
                events.append(_event(credential, row, "ends", left))
        session.add(row)
    await session.flush()
    if events:
        await log.append(session, credential.org_id, events)


def _event(
    credential: ProviderCredential, row: ProviderModel, what: str, days: int | None
) -> NewEvent:
    ends: date | None = row.ends
    if what == "gone":
        words = f"{row.name} is not listed by {credential.provider} any more."
    elif days is not None and days < 0:
        words = f"{row.name} at {credential.provider} ended on {ends}."
    else:
        words = f"{row.name} at {credential.provider} ends on {ends}, in {days} days."
    return NewEvent(
        EventType.MODEL_SUNSET,
        {
            "level": "warn",
            "message": words,
            "provider": credential.provider,
            "projectId": credential.project_id,
            "model": row.name,
            "ends": ends.isoformat() if ends else None,
            "gone": what == "gone",
        },
    )
