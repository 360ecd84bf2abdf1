"""An API process as `luthier serve` runs it, and on a second port by the path that every ASGI
server has.

    python -m tests.chaos.serve PORT ASGI_PORT
"""

import asyncio
import sys
from typing import Any

import uvicorn
import uvloop

from app.api.graphql.live.direct import LiveProtocol
from app.api.server import Server
from app.core.logging import configure
from app.core.settings import Settings
from app.main import create_app


async def main(port: int, asgi_port: int) -> None:
    settings = Settings(_env_file=None)
    configure(settings.log_level, settings.log_format)
    assert settings.database_url is not None
    more: dict[str, Any] = {
        "app": create_app(settings, settings.database_url.get_secret_value()),
        "http": "httptools",
        "ws_max_size": settings.max_body_bytes,
        "ws_per_message_deflate": False,
        "access_log": False,
        "log_config": None,
    }
    direct = Server(uvicorn.Config(port=port, ws=LiveProtocol, **more))
    plain = uvicorn.Server(
        uvicorn.Config(port=asgi_port, ws="websockets-sansio", lifespan="off", **more)
    )
    serving = asyncio.create_task(direct.serve())
    while not direct.started:  # noqa: ASYNC110 - uvicorn tells it in no other way
        await asyncio.sleep(0.02)
    await asyncio.gather(serving, plain.serve())


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
