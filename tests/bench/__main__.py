"""Benchmarks, on loopback only: `python -m tests.bench [NAME]`.

fanout, latency, idle and connect give all figures of live delivery, so they choose scenarios.
They print CPU beside a bare write's, and end with status 1 when a target is missed.
`page` is the cost of queries, `training` that of a step through the worker, `ingest` that of
metric points on their way into the log, `changes` that of changes of state, `attacks` that of
requests made to hurt, `webhooks` how soon a storm of them is answered.
"""

import argparse
import asyncio
import sys

from tests.bench import attacks, changes, ingest, page, training, webhooks
from tests.bench.live import SCENARIOS, Figures, measure, over, shown
from tests.bench.world import world

_CHOSEN = {
    "fanout": list(SCENARIOS),
    "latency": ["100", "1000"],
    "idle": ["5000"],
    "connect": ["1000"],
}
_ALONE = {
    "page": page.main,
    "training": training.main,
    "ingest": ingest.main,
    "changes": changes.main,
    "attacks": attacks.main,
    "webhooks": webhooks.main,
}


async def live(names: list[str], path: str) -> list[Figures]:
    async with world(path) as found:
        return [await measure(found, SCENARIOS[name]) for name in names]


def main() -> None:
    if alone := _ALONE.get(" ".join(sys.argv[1:2])):
        del sys.argv[1]
        alone()
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=list(_CHOSEN), default="fanout")
    parser.add_argument("--only", choices=list(SCENARIOS), action="append")
    parser.add_argument("--path", choices=["direct", "asgi"], default="direct")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    chosen = given.only or _CHOSEN[given.what]
    figures = asyncio.run(live(chosen, given.path))
    print(shown(figures, given.json))  # noqa: T201
    found = zip(chosen, figures, strict=True)
    missed = [words for name, one in found for words in over(SCENARIOS[name], one)]
    sys.exit("\n".join(missed) or 0)


if __name__ == "__main__":
    main()
