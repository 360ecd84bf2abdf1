"""The adapters of this worker: opened once per credential, each looking at many jobs at once."""

import asyncio
from collections.abc import Mapping

from app.accounts import credentials
from app.accounts.tables import ProviderCredential
from app.core.errors import Invalid
from app.core.vault import CannotOpen, Vault
from app.providers.base import OVER, Adapter, Sighting
from app.providers.errors import ProviderDenied, ProviderMissing, ProviderTrouble
from app.providers.registry import Providers

_TOGETHER = 0.05  # seconds in which questions are gathered
_MOST_LISTED = 100
_FEW = 2


class Account:
    """One project's access to a provider, with the questions about its jobs that wait."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self._asked: dict[str, asyncio.Future[Sighting | None]] = {}
        self._listing: asyncio.Task[None] | None = None

    async def look(self, id: str, raw: str | None) -> Sighting:
        """The job as it is now; `raw` is the provider's last word for its status. Several that are
        asked for at once cost one listing; what has changed is then looked at by itself, since
        rows of lists leave things out. Raises ProviderMissing."""
        future = self._asked.get(id)
        if future is None:
            future = self._asked[id] = asyncio.get_running_loop().create_future()
        if self._listing is None:
            self._listing = asyncio.create_task(self._list(), name="provider-listing")
        listed = await asyncio.shield(future)
        if listed is not None and listed.raw == raw and listed.status not in OVER:
            return listed
        return await self.adapter.get(id)

    async def _list(self) -> None:
        await asyncio.sleep(_TOGETHER)
        asked, self._asked, self._listing = self._asked, {}, None
        found: Mapping[str, Sighting] = {}
        if len(asked) >= _FEW:
            try:
                found = {one.id: one for one in await self.adapter.listing(_MOST_LISTED)}
            except (*ProviderTrouble, ProviderMissing):
                pass  # each is asked for by itself, and hears what the trouble is
        for id, future in asked.items():
            if not future.done():
                future.set_result(found.get(id))


class ProviderAccounts:
    def __init__(self, providers: Providers, vault: Vault) -> None:
        self._providers, self.vault = providers, vault
        self._open: dict[str, tuple[str, Account]] = {}

    def open(self, row: ProviderCredential) -> Account:
        """Raises ProviderDenied for a credential that cannot be used as it is."""
        stamp = f"{row.key_version} {row.updated_at.isoformat()}"
        kept = self._open.get(row.id)
        if kept and kept[0] == stamp:
            return kept[1]
        try:
            account = credentials.opened(self.vault, row)
            found = Account(self._providers.adapter(row.provider, account, row.id))
        except CannotOpen as sealed:
            raise ProviderDenied(f"The credential cannot be opened: {sealed}") from sealed
        except Invalid as unusable:  # the settings have changed since it was stored
            raise ProviderDenied(f"The credential cannot be used: {unusable}") from unusable
        self._open[row.id] = (stamp, found)
        return found

    async def close(self) -> None:
        await self._providers.close()
