"""One running subscription and everybody who watches it.

Each viewer begins with an execution of its own, from its own cursor. When that has told all there
is, it either becomes the group's, which others join, or hands its viewer to the group there is.
This happens where the stream says that it is idle, in one step without an await, so no entry can
come between the two.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from graphql import GraphQLError
from strawberry.types.execution import ExecutionResult, PreExecutionError

from app.api.graphql.answers import payload_of
from app.api.graphql.errors import present
from app.api.graphql.live.channel import Channel, Read, Results
from app.api.graphql.live.plans import Request
from app.api.graphql.live.wire import Result
from app.core.errors import Unavailable

if TYPE_CHECKING:
    from app.api.graphql.live.connection import Viewer
    from app.api.graphql.live.engine import Live

_RECENT = 32  # results kept for those who come back after a short absence
_RECENT_BYTES = 64 * 1024
_BREATHE = 256  # messages written before other work of the process gets its turn
_BREATHE_BYTES = 64 * 1024  # the same for one viewer's bytes
_AGAIN = 1.0  # seconds between two attempts while the database is out of reach
_OUTAGE = Unavailable.code
PATIENCE = 30.0  # seconds of that after which the viewers are told


class Execution(Channel):
    def __init__(
        self,
        live: "Live",
        request: Request,
        key: Hashable | None,
        viewer: "Viewer",
        request_id: str,
    ) -> None:
        self.key, self.request = key, request
        self._live, self._request_id = live, request_id
        self.members: dict[Viewer, None] = {viewer: None}
        self._ahead: dict[Viewer, int] = {}  # told up to here already, which is further than we are
        self.start = viewer.position
        self.position = viewer.position
        self.open = False
        self.opening: Hashable | None = None  # by it others join, until the beginning is found
        self._covered: tuple[int, int] | None = None
        self._recent: deque[tuple[int, int, bytes]] = deque()
        self._recent_bytes = 0
        self._floor = 0  # everything after it is in `_recent`
        self._written = 0
        self._written_bytes = 0
        self._read: Read | None = None
        self._lost_at: float | None = None  # since when the database is out of reach
        self.task: asyncio.Task[None] | None = None

    # What the stream says

    def begin(self, position: int) -> None:
        self.position = self._floor = position
        self._live.begun(self)

    def covers(self, first: int | None, last: int | None = None) -> None:
        self._covered = None if first is None else (first, first if last is None else last)

    def idle(self, position: int, *, at_once: bool = True) -> bool:
        self._advance(position)
        self._lost_at = None
        if self.key is None:
            return False
        group = self._live.groups.setdefault(self.key, self)
        if group is self:
            self.open = at_once
            return False
        if not group.reaches(position):
            return False
        for viewer in self._everybody():
            group.take(viewer, position)
        return True

    def tell(self, results: Results, position: int) -> Callable[[], int] | None:
        if self.reader is None or self._live.groups.get(self.key, self) is not self:
            return None  # in a group it may be time to hand the viewers over
        try:
            read = self._read = self._read or self._live.readers.of(self.request, self.reader)
            payloads = [(first, last, _encoded({"data": read(it)})) for first, last, it in results]
        except Exception:  # noqa: BLE001 - the general way says what is wrong
            return None
        return partial(self._tell, payloads, position)

    def _tell(self, payloads: list[tuple[int, int, bytes]], position: int) -> int:
        self._written = self._written_bytes = 0
        for first, last, payload in payloads:
            if self._breathless:
                return self.position or 0
            self.covers(first, last)
            self._deliver(payload)
        self._advance(position)
        if not self.members and not self._ahead:
            self.stop()
        return position

    # Who watches

    def reaches(self, position: int) -> bool:
        """Whether one who was told everything up to here can be told the rest by this execution."""
        if self.position is None:
            return False
        return position >= self.position or (
            position >= self._floor
            and all(not first <= position < last for first, last, _ in self._recent)
        )

    def take(self, viewer: "Viewer", position: int) -> None:
        """Let one join for whom this execution `reaches` its position."""
        assert self.position is not None  # noqa: S101 - `reaches` was asked
        viewer.execution, viewer.request = self, self.request
        if position > self.position:
            viewer.position = position
            self._ahead[viewer] = position
            return
        for first, last, payload in self._recent:
            if first > position:
                if not viewer.wire.publish(viewer.prefix, Result(payload, last)):
                    viewer.stall(position)
                    return
                position = last
        self.members[viewer] = None

    def join(self, viewer: "Viewer") -> None:
        """Let one begin together with the others, where this execution is about to begin."""
        viewer.execution, viewer.request = self, self.request
        self.members[viewer] = None

    def leave(self, viewer: "Viewer") -> None:
        self.members.pop(viewer, None)
        self._ahead.pop(viewer, None)
        viewer.execution = None
        if not self.members and not self._ahead:
            self.stop()

    def stop(self) -> None:
        self._live.forget(self)
        if self.task:
            self.task.cancel()

    # The work

    async def run(self, context: Any) -> None:
        """Until the stream completes or nobody watches. While the database is out of reach it is
        begun again and again after the last position; at last the viewers are told."""
        clock = asyncio.get_running_loop().time
        try:
            while errors := await self._follow(context):
                self._lost_at = self._lost_at or clock()
                if clock() - self._lost_at > PATIENCE:
                    self._refuse(errors)
                    return
                self.start = self.position
                await asyncio.sleep(_AGAIN * (0.5 + random.random()))  # noqa: S311 - jitter
        except Exception as bug:  # noqa: BLE001 - whatever it is, the viewers are told
            shown = present(GraphQLError(str(bug), original_error=bug), self._request_id)
            self._refuse([shown.formatted])
        finally:
            self.reader = None
            self._live.forget(self)

    async def _follow(self, context: Any) -> list[Any]:
        """Deliver results to the end; the errors of one that the database owes."""
        request, begun = self.request, False
        results = await self._live.schema.stream(
            request.query,
            variable_values=request.variables,
            context_value=context,
            operation_name=request.operation_name,
        )
        async with aclosing(results):
            async for result in results:
                assert isinstance(result, ExecutionResult)  # noqa: S101 - @defer is off
                errors = [error.formatted for error in result.errors or ()]
                if any(error.get("extensions", {}).get("code") == _OUTAGE for error in errors):
                    return errors
                if isinstance(result, PreExecutionError) and not begun:
                    self._refuse(errors)
                    return []
                begun = True
                self._deliver(_encoded(payload_of(result)))
                if not self.members and not self._ahead:
                    return []
                if self._breathless:
                    self._written = self._written_bytes = 0
                    await asyncio.sleep(0)
        self._live.forget(self)
        for viewer in self._everybody():
            viewer.complete()
        return []

    @property
    def _breathless(self) -> bool:
        return self._written >= _BREATHE or self._written_bytes >= _BREATHE_BYTES

    def _everybody(self) -> "list[Viewer]":
        everybody = [*self.members, *self._ahead]
        self.members.clear()
        self._ahead.clear()
        return everybody

    def _refuse(self, errors: list[Any]) -> None:
        self._live.forget(self)
        for viewer in self._everybody():
            viewer.refuse(errors)

    def _advance(self, position: int) -> None:
        """What lies up to here is told, or is none of what was asked for."""
        self.position = position
        if self._ahead:
            for viewer in [v for v, at in self._ahead.items() if at <= position]:
                del self._ahead[viewer]
                self.members[viewer] = None

    def _deliver(self, payload: bytes) -> None:
        covered, before = self._covered, self.position
        told = covered[1] if covered else None
        self._lost_at = None
        result = Result(payload, told)
        late = [v for v in self.members if not v.wire.publish(v.prefix, result)]
        self._written += len(self.members)
        self._written_bytes += len(payload)
        for viewer in late:
            del self.members[viewer]
            viewer.stall(before)
        if covered is None:
            return
        first, last = covered
        halves = self._catch_up(first, last, result) if self._ahead else ()
        self._advance(last)
        self._remember(first, last, payload)
        for viewer, at in halves:  # they know a part of this result already
            self._live.begin(viewer, at)

    def _catch_up(self, first: int, last: int, result: Result) -> "list[tuple[Viewer, int]]":
        """Tell those who were ahead; returns who knows a part of it already, with the position."""
        halves = []
        for viewer, at in [*self._ahead.items()]:
            if at >= last:
                continue
            del self._ahead[viewer]
            if at >= first:
                halves.append((viewer, at))
            elif viewer.wire.publish(viewer.prefix, result):
                self.members[viewer] = None
            else:
                viewer.stall(at)
        return halves

    def _remember(self, first: int, last: int, payload: bytes) -> None:
        self._recent.append((first, last, payload))
        self._recent_bytes += len(payload)
        while len(self._recent) > _RECENT or self._recent_bytes > _RECENT_BYTES:
            _, self._floor, gone = self._recent.popleft()
            self._recent_bytes -= len(gone)


def _encoded(payload: dict[str, Any]) -> bytes:
    return orjson.dumps(payload, option=orjson.OPT_NON_STR_KEYS)
