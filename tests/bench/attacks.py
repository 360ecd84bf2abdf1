"""What each known attack costs: `python -m tests.bench attacks`.

The best of a few tries, as a client sees it: sending, the server's work, the answer. Rows above
the target are marked.
"""

import asyncio
from dataclasses import dataclass

import httpx

from tests.api.attacks import FRAMES, HTTP, send, strike
from tests.bench.world import PORT, world

_TRIES = 5
TARGET_MS = 50.0
TARGET_BYTES = 64 * 1024


@dataclass(frozen=True)
class Row:
    name: str
    ms: float
    size: int
    answer: str

    @property
    def good(self) -> bool:
        return self.ms <= TARGET_MS and self.size <= TARGET_BYTES


async def rows() -> list[Row]:
    url = f"http://127.0.0.1:{PORT}"
    found = []
    async with world("direct", jobs=1) as made:
        key = made.tenant.key
        headers = {"x-api-key": key}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as http:
            for attack in HTTP:
                tries = [await send(http, attack) for _ in range(_TRIES)]
                best = min(tries, key=lambda one: one.seconds)
                answer = f"{best.status} {' '.join(sorted(best.codes)) or 'answered'}"
                found.append(Row(attack.name, 1000 * best.seconds, best.size, answer))
        for frame in FRAMES:
            struck = [await strike(url, key, frame) for _ in range(_TRIES)]
            seconds, code, heard = min(struck)
            answer = f"closed {code}" if code else "error"
            found.append(Row(frame.name, 1000 * seconds, len(heard), answer))
    return found


def main() -> None:
    found = asyncio.run(rows())
    for row in found:
        mark = "" if row.good else "  above the target"
        print(f"{row.name:44} {row.ms:8.1f} ms {row.size:7} B  {row.answer}{mark}")  # noqa: T201
    print(f"{sum(row.good for row in found)} of {len(found)} within 50 ms and 64 KB")  # noqa: T201
