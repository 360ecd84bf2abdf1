"""How simulators send webhooks: late, three times, forged or never, as their cheats say."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import httpx

from app.simulators.runs import Plan
from app.simulators.simulator import Simulator

_FORGED = "forged"
_PAUSES = (0.5, 2.0, 5.0, 15.0, 60.0)


@dataclass(frozen=True)
class Message:
    """`headers` are made of the secret, anew for each attempt; `is_final` says of the status of an
    answer, 0 where there was none, whether to leave it at that."""

    kind: str
    url: str
    secret: str
    body: bytes
    headers: Callable[[str], Mapping[str, str]]
    is_final: Callable[[int], bool]


class Messenger(Simulator):
    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.sent: list[tuple[str, int]] = []
        """Webhooks: what kind, and what was answered."""

    def messages(self) -> Iterable[Message]:
        """What is to be told now, and was not told before."""
        raise NotImplementedError

    async def background(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            sending: set[asyncio.Task[None]] = set()
            while True:
                await asyncio.sleep(0.05)
                if self.cheats.down:
                    continue
                for message in self.messages():
                    task = asyncio.create_task(self._tell(client, message))
                    sending.add(task)
                    task.add_done_callback(sending.discard)

    async def _tell(self, client: httpx.AsyncClient, message: Message) -> None:
        cheats = self.cheats
        if self.chance.random() < cheats.drop_webhooks:
            return
        times = 3 if self.chance.random() < cheats.repeat_webhooks else 1
        forged = self.chance.random() < cheats.forge_webhooks
        for number in range(times + forged):
            await asyncio.sleep(self.chance.random() * cheats.late_webhooks)
            forgery = forged and number == times
            await self._post(client, message, _FORGED if forgery else message.secret)

    async def _post(self, client: httpx.AsyncClient, message: Message, secret: str) -> None:
        """Again and again, as long as nobody takes it; a forger tries once."""
        for pause in _PAUSES:
            headers = dict(message.headers(secret))
            try:
                answer = await client.post(message.url, content=message.body, headers=headers)
                status = answer.status_code
            except httpx.TransportError:
                status = 0
            self.sent.append((message.kind, status))
            if message.is_final(status) or secret == _FORGED:
                return
            await asyncio.sleep(pause)
