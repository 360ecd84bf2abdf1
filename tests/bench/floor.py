"""The floor: a bare loop that writes one frame to each of its sockets, and does nothing else.

At each line `{"rounds", "size", "pause"}` on its input it writes that often, then answers `done`.
"""

import asyncio
import json
import resource
import sys
from typing import Any

import uvloop


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sockets: list[Any] = []

    class Bare(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            sockets.append(transport)

    server = await loop.create_server(Bare, "127.0.0.1", port, backlog=4096)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print("ready", flush=True)  # noqa: T201
    while line := await lines.readline():
        wanted = json.loads(line)
        size = wanted["size"]
        for _ in range(wanted["rounds"]):
            frame = b"\x81\x7e" + size.to_bytes(2, "big") + b"x" * size
            for one in sockets:
                one.write(frame)
            await asyncio.sleep(wanted["pause"])
        print("done", flush=True)  # noqa: T201
    server.close()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
