"""Simulated providers on loopback, to try everything without an account anywhere."""

import asyncio
import dataclasses
import json
import shlex
import signal
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import typer

from app.cli.job_submit import pairs
from app.core.errors import StartRefused
from app.simulators.registry import SIMULATED
from app.simulators.runs import Plan
from app.simulators.simulator import Cheats, Simulator

_LONG = 120  # characters of a secret that is better kept in a file than typed


def chosen(names: list[str], everything: bool) -> list[str]:
    """Raises a usage error."""
    wanted = list(SIMULATED) if everything else list(dict.fromkeys(n.lower() for n in names))
    unknown = [name for name in wanted if name not in SIMULATED]
    if unknown or not wanted:
        raise typer.BadParameter(f"Choose of {', '.join(SIMULATED)}, or --all.", param_hint="NAME")
    return wanted


def cheats(given: list[str]) -> dict[str, Any]:
    """Raises a usage error for a cheat that there is not."""
    found = {name.replace("-", "_"): _value(text) for name, text in pairs(given, "--cheat").items()}
    try:
        Simulator().cheat(found)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong), param_hint="--cheat") from wrong
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


async def serve(names: Iterable[str], first_port: int, plan: Plan, told: Mapping[str, Any]) -> None:
    """Until a signal. Raises StartRefused where a port is taken."""
    ending, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    origins, urls, port = [], {}, first_port
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="luthier-simulate-")))
        for name in names:
            simulator = SIMULATED[name].simulator(plan)
            simulator.cheat(told)
            try:
                urls[name] = await stack.enter_async_context(simulator.served(port))
            except OSError as taken:
                why = taken.strerror or taken
                raise StartRefused(f"Cannot listen on {port}: {why}. Choose --port.") from taken
            origins += [urls[name], *simulator.origins]
            port += simulator.ports if port else 0
        for line in _words(urls, origins, folder):
            typer.echo(line)
        await ending.wait()


def _words(urls: Mapping[str, str], origins: list[str], folder: Path) -> Iterable[str]:
    yield "Let a server's credentials go there:"
    yield f"  LUTHIER_PROVIDER_ORIGINS={shlex.quote(json.dumps(origins))} luthier up"
    for name, url in urls.items():
        yield ""
        yield f"{name:<10} {url}"
        yield f"  {connect_command(name, url, folder)}"
        yield f"  luthier jobs submit --provider {name} --base-model {SIMULATED[name].base_model} …"
    known = ", ".join(field.name for field in dataclasses.fields(Cheats))
    yield ""
    yield f"What goes wrong ({known})"
    yield "can be changed at any time, at each by its own URL:"
    url = next(iter(urls.values()))
    yield f"  curl -X PUT {url}/_cheats -d '{{\"throttle\": 20}}'"
    yield "Ctrl-C ends it."


def connect_command(name: str, url: str, folder: Path) -> str:
    """The exact one. Long secrets are put into files in `folder`."""
    account = SIMULATED[name].account(url)
    words = ["luthier", "providers", "connect", name]
    for secret, value in account.secrets.items():
        if len(value) > _LONG:
            file = folder / f"{name}-{secret}"
            file.write_text(value)
            file.chmod(0o600)
            value = f"@{file}"
        words += ["--secret", f"{secret}={value}"]
    for setting, value in account.settings.items():
        words += ["--setting", f"{setting}={value}"]
    return shlex.join(words)
