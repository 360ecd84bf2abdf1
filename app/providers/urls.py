"""Which URLs a credential may be sent to, and which URLs that a provider names may be fetched."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from app.providers.errors import ProviderUnreachable, UrlNotAllowed


class Allowed:
    """`origins` (scheme, host and port) are allowed by the settings for every provider: an own
    gateway, or simulators."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self._origins = {_origin(one) for one in origins}

    def lists(self, url: str) -> bool:
        return _origin(url) in self._origins

    def require(self, url: str, hosts: Iterable[str], name: str) -> None:
        """For a request that carries the credential: without this a key could be sent anywhere."""
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        own = parts.scheme == "https" and parts.port in (None, 443) and not parts.username
        if own and any(_matches(host, pattern) for pattern in hosts):
            return
        if not self.lists(url):
            raise UrlNotAllowed(
                f"{name}: {url[:120]!r} is not a URL of this provider. An operator can allow its "
                "origin by LUTHIER_PROVIDER_ORIGINS.",
                path=(name,),
            )

    async def require_public(self, url: str) -> None:
        """For a request without a credential to where a provider sent us: not into our network.
        Raises ProviderUnreachable."""
        if self.lists(url):
            return
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.username:
            raise ProviderUnreachable("The provider names a URL that is not used.", sent=False)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                parts.hostname, parts.port or 443, type=socket.SOCK_STREAM
            )
        except OSError:
            return  # the request itself will say so
        if not all(ipaddress.ip_address(one[4][0]).is_global for one in found):
            raise ProviderUnreachable(
                f"The provider sends us to {parts.hostname}, an address that is not public. An "
                "operator can allow its origin by LUTHIER_PROVIDER_ORIGINS.",
                sent=False,
            )


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or usual


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern
