"""From the command line to the API: which server, which key, and how a refusal ends a command.

Exit statuses: 0 done · 1 refused, or no answer · 2 wrong usage · 130 interrupted.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import typer
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.cli import show
from app.client import ApiError, Client, Timing
from app.core.settings import Settings

Result = TypeVar("Result")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]

# A server that restarts is waited for, but a script must not hang for ever.
PATIENCE = Timing(first_connect=30, reconnect=600)


class NoServer(Exception):
    """It cannot be told which server to ask, or with which key."""


class _Given(BaseSettings):
    """What the environment says of a server elsewhere."""

    model_config = SettingsConfigDict(env_prefix="LUTHIER_", env_file=".env", extra="ignore")

    url: str | None = None
    api_key: SecretStr | None = None


def server() -> tuple[str, str]:
    """The URL and the key: `LUTHIER_URL` and `LUTHIER_API_KEY`, else those of this machine."""
    try:
        given, settings = _Given(), Settings()
    except ValidationError as wrong:
        first = wrong.errors()[0]
        raise NoServer(f"LUTHIER_{str(first['loc'][0]).upper()}: {first['msg']}") from wrong
    url = (given.url or settings.local_url).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NoServer(f"LUTHIER_URL must be like https://luthier.example.com, not {url!r}.")
    if given.api_key is not None:
        return url, given.api_key.get_secret_value().strip()
    if given.url and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise NoServer("Set LUTHIER_API_KEY too: the local owner key is not sent elsewhere.")
    return url, _owner_key(settings)


def _owner_key(settings: Settings) -> str:
    path = settings.data_dir / "owner-key"
    try:
        return path.read_text().strip()
    except OSError as missing:
        raise NoServer(
            f"There is no key in {path}. Start a server here with `luthier up`, or set "
            "LUTHIER_URL and LUTHIER_API_KEY."
        ) from missing


def run(work: Callable[[Client], Awaitable[Result]], as_json: bool = False) -> Result:
    """Do the work with a client. A refusal becomes one line on stderr and exit status 1; with
    `--json` its details go to stdout as `{"error": …}`."""
    try:
        return asyncio.run(_with_client(work))
    except ApiError as refused:
        if as_json:
            details = {"message": refused.message, "code": refused.code, "errors": refused.errors}
            show.as_json({"error": details})
        show.complain(_advice(refused))
    except (NoServer, OSError) as trouble:
        show.complain(str(trouble))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(1)


async def _with_client(work: Callable[[Client], Awaitable[Result]]) -> Result:
    url, key = server()
    async with Client(url, key, timing=PATIENCE) as client:
        return await work(client)


def _advice(refused: ApiError) -> str:
    match refused.code:
        case "UNREACHABLE":
            return f"{refused.message} Is the server running? Start one with `luthier up`."
        case "UNAUTHENTICATED" | "API_KEY_INVALID" | "API_KEY_EXPIRED" | "API_KEY_REVOKED":
            return f"{refused.message} Check LUTHIER_API_KEY and LUTHIER_URL."
        case _:
            return refused.message
