"""Rings by Redis, Valkey or what else speaks their protocol: PUBLISH and SUBSCRIBE."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.events.bell import ANSWER_WITHIN, CHANNEL, PROBE_EVERY, Bell


class RedisBell(Bell):
    server = "Redis"
    troubles = (RedisError, OSError, TimeoutError)

    def __init__(self, url: str) -> None:
        """Raises ValueError or TypeError for a URL that cannot be read; their text may quote it."""
        super().__init__()
        self._url = url
        # Tried twice, for the connection may have died since the last ring; rung twice is no harm.
        self._sender = self._client(retries=1)
        # Connects to nothing, but reads the options.
        self._sender.connection_pool.make_connection()  # type: ignore[no-untyped-call]

    async def _listen(self) -> None:
        # Without retries: the client's own would join again without a word of it.
        async with self._client(retries=0) as client, client.pubsub() as channel:
            await channel.subscribe(CHANNEL)
            asked = False
            while True:
                said = await channel.get_message(timeout=PROBE_EVERY)
                if said is None and asked:
                    raise TimeoutError("no answer to a PING")
                asked = said is None
                if said is None:  # quiet, or half-open
                    await channel.ping()
                elif said["type"] == "subscribe":
                    self._joined()
                elif said["type"] == "message":
                    self._hear(said["data"])

    async def _ring(self, message: str) -> None:
        await self._sender.publish(CHANNEL, message)

    async def _hang_up(self) -> None:
        await self._sender.aclose()

    def _client(self, retries: int) -> Redis:
        client: Redis = Redis.from_url(
            self._url,
            socket_connect_timeout=ANSWER_WITHIN,
            socket_timeout=ANSWER_WITHIN,
            retry=Retry(NoBackoff(), retries),
            client_name="luthier_doorbell",
            decode_responses=True,
            encoding_errors="replace",
            protocol=2,
        )
        return client
