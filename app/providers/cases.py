"""Our cases on their way into a provider's form, and the file of them on its way out."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import IO, Any

import orjson

from app.providers.errors import ProviderRefused

_PIECE = 1 << 20


class CannotConvert(ValueError):
    """The message says what the provider has no form for, in a sentence without its full stop."""


def converted(
    lines: Iterable[bytes], convert: Callable[[dict[str, Any]], dict[str, Any]], param: str
) -> Iterator[bytes]:
    """A line for each case. Raises ProviderRefused with the number of a line that `convert` raises
    CannotConvert for; `param` is what it came as."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            made = convert(orjson.loads(line))
        except (CannotConvert, orjson.JSONDecodeError) as trouble:
            raise ProviderRefused(
                f"Line {number}: {trouble}.", reason="case_unfit", param=param
            ) from trouble
        yield orjson.dumps(made) + b"\n"


def tools_of(case: Mapping[str, Any]) -> dict[str, Any]:
    """`tools`, which may be in the older form of `functions`; {} without any."""
    tools = case.get("tools") or [
        {"type": "function", "function": one} for one in case.get("functions") or ()
    ]
    return {"tools": tools} if tools else {}


def renamed(messages: Iterable[Mapping[str, Any]], roles: Mapping[str, str]) -> list[Any]:
    """The messages by other names of their roles."""
    return [{**one, "role": roles.get(one["role"], one["role"])} for one in messages]


class Pieces:
    """A file as the content of a request, which can be sent again from its beginning."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await asyncio.to_thread(self._file.seek, 0)
        while piece := await asyncio.to_thread(self._file.read, _PIECE):
            yield piece
