"""Every provider there is, and how one is asked on behalf of a project."""

from collections.abc import Iterable, Mapping

import httpx

from app.core.errors import Invalid
from app.providers.azure import Azure
from app.providers.base import Account, Adapter, Capabilities
from app.providers.bedrock import Bedrock
from app.providers.fireworks import Fireworks
from app.providers.http import Pace
from app.providers.openai import OpenAI
from app.providers.together import Together
from app.providers.urls import Allowed
from app.providers.vertex import Vertex

LOCAL = "local"
ADAPTERS: dict[str, type[Adapter]] = {
    adapter.capabilities.provider: adapter
    for adapter in (OpenAI, Azure, Bedrock, Vertex, Fireworks, Together)
}


def adapter_of(provider: str) -> type[Adapter]:
    """Raises Invalid for one that nobody knows."""
    try:
        return ADAPTERS[provider]
    except KeyError:
        raise Invalid(
            f"There is no provider {provider[:40]!r}. There are {', '.join(ADAPTERS)}.",
            path=("provider",),
        ) from None


def capabilities(provider: str) -> Capabilities:
    return adapter_of(provider).capabilities


class Providers:
    """What one process asks providers with: one HTTP client, and a pace per credential."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self.allowed = Allowed(origins)
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(connect=5, read=120, write=120, pool=30),
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=20),
            trust_env=False,
            follow_redirects=False,
        )
        self._paces: dict[str, Pace] = {}

    def adapter(self, provider: str, account: Account, pace_of: str) -> Adapter:
        """`pace_of` names the credential, whose requests are counted together. Raises Invalid,
        UrlNotAllowed."""
        kind = adapter_of(provider)
        _complete(kind, account.secrets, account.settings)
        pace = self._paces.setdefault(pace_of, Pace())
        return kind(account, self._client, self.allowed, pace)

    async def close(self) -> None:
        await self._client.aclose()


def _complete(kind: type[Adapter], secrets: Mapping[str, str], settings: Mapping[str, str]) -> None:
    for name in kind.required:
        if not (secrets.get(name) or settings.get(name)):
            raise Invalid(f"{kind.capabilities.name} needs {name}.", path=("credential", name))
