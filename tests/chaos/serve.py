"""An API process on the path that every ASGI server has, without our own protocol class.

python -m tests.chaos.serve PORT
"""

import sys

import uvicorn

from app.api.server import Server
from app.core.logging import configure
from app.core.settings import Settings
from app.main import create_app


def main(port: int) -> None:
    settings = Settings(_env_file=None)
    configure(settings.log_level, settings.log_format)
    assert settings.database_url is not None
    config = uvicorn.Config(
        create_app(settings, settings.database_url.get_secret_value()),
        port=port,
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=settings.max_body_bytes,
        access_log=False,
        log_config=None,
    )
    Server(config).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
