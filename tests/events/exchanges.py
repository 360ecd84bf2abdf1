"""The servers that carry rings, as an operator sees them: who is connected, and cut off."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import redis

from app.events.bell import CHANNEL
from tests.events.redis_server import RedisServer
from tests.events.tools import backends, cut, owner

NAME = "luthier_doorbell"


class Exchange(ABC):
    """Connections are numbers; those open before a test began are not told of."""

    url: str

    @abstractmethod
    async def listeners(self) -> set[int]: ...

    @abstractmethod
    async def senders(self) -> set[int]: ...

    @abstractmethod
    async def cut(self, connections: set[int]) -> None: ...

    @abstractmethod
    async def say(self, message: str) -> None:
        """As a stranger on the channel."""


class PostgresExchange(Exchange):
    def __init__(
        self, url: str, connection: "asyncpg.Connection[asyncpg.Record]", others: set[int]
    ) -> None:
        self.url, self._connection, self._others = url, connection, others

    async def listeners(self) -> set[int]:
        ours = await backends(self._connection, NAME) - self._others
        return ours - await self.senders()

    async def senders(self) -> set[int]:
        return await backends(self._connection, NAME, "SELECT pg_notify%") - self._others

    async def cut(self, connections: set[int]) -> None:
        await cut(self._connection, connections)

    async def say(self, message: str) -> None:
        await self._connection.execute("SELECT pg_notify($1, $2)", CHANNEL, message)


class RedisExchange(Exchange):
    def __init__(self, url: str, admin: redis.Redis) -> None:
        self.url, self._admin = url, admin

    async def listeners(self) -> set[int]:
        return self._clients(listening=True)

    async def senders(self) -> set[int]:
        return self._clients(listening=False)

    async def cut(self, connections: set[int]) -> None:
        for one in connections:
            self._admin.client_kill_filter(_id=str(one))

    async def say(self, message: str) -> None:
        self._admin.publish(CHANNEL, message)

    def _clients(self, listening: bool) -> set[int]:
        found = [client for client in self._admin.client_list() if client["name"] == NAME]
        return {int(client["id"]) for client in found if (client["sub"] == "1") == listening}


@asynccontextmanager
async def postgres_exchange(database_url: str) -> AsyncIterator[Exchange]:
    async with owner(database_url) as connection:
        others = await backends(connection, NAME)
        yield PostgresExchange(database_url, connection, others)


@asynccontextmanager
async def redis_exchange(server: RedisServer) -> AsyncIterator[Exchange]:
    with server.admin() as admin:
        yield RedisExchange(server.url, admin)
