"""`python -m app.graders`: requests on standard input, replies on standard output (`protocol`).

It ends when its input ends, and with the process that started it.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import get_args

from app.core.egress import Egress
from app.core.parent import die_with_parent
from app.graders import protocol
from app.graders.chat import Models
from app.graders.evaluate import Evaluator
from app.graders.sandbox.box import Limits
from app.graders.sandbox.choice import Wanted, choose
from app.graders.sandbox.pool import Pool
from app.graders.server import Server
from app.graders.text import TextMetrics


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="graders: %(message)s")
    die_with_parent()
    # Libraries print to standard output whenever they like; nothing but replies may arrive there.
    requests, replies = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    asyncio.run(_run(arguments, requests, replies))


async def _run(arguments: argparse.Namespace, requests: int, replies: int) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=protocol.LONGEST_LINE)
    pipe, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(requests, "rb", 0)
    )
    for asked in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(asked, reader.feed_eof)

    limits = Limits(memory=arguments.memory, seconds=arguments.seconds)
    choice = await choose(arguments.sandbox, limits, arguments.boxes)
    pool = Pool(choice.engine, limits, arguments.boxes) if choice.engine else None
    egress = Egress()
    evaluator = Evaluator(
        TextMetrics(arguments.wordnet),
        Models(egress, frozenset(arguments.model_url)),
        choice,
        pool,
    )
    engine = choice.engine.name if choice.engine else None
    ready = protocol.Ready(sandbox=engine, description=choice.description, refused=choice.refused)
    try:
        _send(replies, protocol.write(ready))
        await Server(evaluator, lambda line: _send(replies, line)).serve(reader)
    except BrokenPipeError:
        pass  # who started it left at once
    finally:
        pipe.close()
        if pool is not None:
            await pool.close()
        await egress.close()


def _send(fd: int, line: bytes) -> None:
    while line:
        line = line[os.write(fd, line) :]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.graders")
    parser.add_argument("--sandbox", choices=get_args(Wanted), default="auto")
    parser.add_argument("--boxes", type=int, default=(os.cpu_count() or 1) + 1)
    parser.add_argument("--memory", type=int, default=Limits.memory)
    parser.add_argument("--seconds", type=float, default=Limits.seconds)
    parser.add_argument("--wordnet", type=Path)
    parser.add_argument("--model-url", action="append", default=[])
    return parser.parse_args()


if __name__ == "__main__":
    main()
