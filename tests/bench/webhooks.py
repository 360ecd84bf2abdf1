"""500 signed webhooks a second for ten seconds: how soon each is answered, and that none is lost.

    python -m tests.bench webhooks [--per-second N] [--seconds N] [--json]

The API is a process of its own on a database that flushes to disk; each webhook is verified,
stored in the inbox and makes its job due, before it is answered. A tenth of them are repetitions
and a tenth are forged. Targets: p99 under 100 ms, every genuine one stored exactly once.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass

import asyncpg
import orjson

from app.accounts import credentials
from app.accounts.credentials import NewCredential
from app.core import signatures
from app.core.secrets import master_keys
from app.core.settings import Settings
from app.core.vault import Vault
from app.providers.base import Account
from tests.bench.world import PORT, World, postgres_cpu, world
from tests.support import as_owner

SECRET = "whsec_" + "YSBzZWNyZXQgdG8gc2lnbiB3aXRoIGluIGEgYmVuY2g="
CONNECTIONS = 32
P99_MS = 100.0


@dataclass(frozen=True)
class Figures:
    sent: int
    per_second: float
    p50_ms: float
    p99_ms: float
    worst_ms: float
    genuine: int
    stored: int
    refused: int
    server_us: float
    postgres_us: float


@dataclass(frozen=True)
class Webhook:
    request: bytes
    genuine: bool


async def measure(per_second: int, seconds: int) -> Figures:
    async with world("direct", durable=True) as found:
        path, jobs = await _prepare(found)
        webhooks = _webhooks(path, jobs, per_second * seconds)
        genuine = len({one.request for one in webhooks if one.genuine})
        server, database = found.server.cpu, postgres_cpu(found.data_dir)
        answers, took = await _send(webhooks, per_second)
        server, database = found.server.cpu - server, postgres_cpu(found.data_dir) - database
        connection = await asyncpg.connect(found.url)
        try:
            stored = await connection.fetchval("SELECT count(*) FROM webhook_inbox")
        finally:
            await connection.close()
    waits = sorted(wait for wait, _ in answers)
    return Figures(
        sent=len(webhooks),
        per_second=round(len(webhooks) / took, 1),
        p50_ms=round(waits[len(waits) // 2] * 1e3, 2),
        p99_ms=round(waits[len(waits) * 99 // 100] * 1e3, 2),
        worst_ms=round(waits[-1] * 1e3, 2),
        genuine=genuine,
        stored=int(stored or 0),
        refused=sum(status == 401 for _, status in answers),
        server_us=round(server / len(webhooks) * 1e6, 1),
        postgres_us=round(database / len(webhooks) * 1e6, 1),
    )


async def _prepare(found: World) -> tuple[str, list[str]]:
    """An endpoint, and jobs that webhooks are about."""
    vault = Vault(master_keys(Settings(data_dir=found.data_dir, _env_file=None)))
    account = Account({"api_key": "sk-of-a-bench"}, {})
    actor = found.tenant.actor
    async with found.writer.transaction(actor.org_id) as session:
        row = await credentials.set_credential(
            session, actor, vault, NewCredential("openai", account, SECRET)
        )
    for number, job in enumerate(found.jobs):
        await as_owner(
            found.url,
            "UPDATE jobs SET provider = 'openai', provider_job_id = :there WHERE id = :id",
            there=f"ftjob-{number}",
            id=job,
        )
    return f"/webhooks/openai/{row.id}", [f"ftjob-{n}" for n in range(len(found.jobs))]


def _webhooks(path: str, jobs: list[str], count: int) -> list[Webhook]:
    chance = random.Random(1)
    made: list[Webhook] = []
    for number in range(count):
        if made and chance.random() < 0.1:
            made.append(chance.choice(made))  # again, as a sender does that missed our answer
            continue
        kind = chance.choice(["succeeded", "failed", "cancelled"])
        data = {"id": chance.choice(jobs)}
        body = orjson.dumps(
            {"id": f"evt_{number}", "type": f"fine_tuning.job.{kind}", "data": data}
        )
        forged = chance.random() < 0.1
        at, secret = int(time.time()), "forged" if forged else SECRET
        head = (
            f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
            f"webhook-id: wh_{number}\r\nwebhook-timestamp: {at}\r\n"
            f"webhook-signature: {signatures.sign(secret, f'wh_{number}', at, body)}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        made.append(Webhook(head.encode() + body, not forged))
    return made


async def _send(webhooks: list[Webhook], per_second: int) -> tuple[list[tuple[float, int]], float]:
    """Each at its moment, whatever became of those before; its wait counts from that moment. And
    the seconds between the first moment and the last answer."""
    began = time.monotonic() + 0.5
    waiting: asyncio.Queue[tuple[float, Webhook]] = asyncio.Queue()
    for number, one in enumerate(webhooks):
        waiting.put_nowait((began + number / per_second, one))
    answers: list[tuple[float, int]] = []

    async def sender() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        while not waiting.empty():
            due, one = waiting.get_nowait()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(one.request)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(int(line[16:]) for line in lines if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            answers.append((time.monotonic() - due, int(head.split(b" ", 2)[1])))
        writer.close()

    await asyncio.gather(*(sender() for _ in range(CONNECTIONS)))
    return answers, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-second", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = asyncio.run(measure(given.per_second, given.seconds))
    print(json.dumps(asdict(figures)) if given.json else figures)  # noqa: T201
    missed = []
    if figures.p99_ms > P99_MS:
        missed.append(f"p99 {figures.p99_ms} ms, over the target of {P99_MS}")
    if figures.stored != figures.genuine:
        missed.append(f"{figures.genuine} genuine webhooks, but {figures.stored} stored")
    sys.exit("\n".join(missed) or 0)


if __name__ == "__main__":
    main()
