"""The graders' process at work: requests in, replies out, many at once."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from pydantic import ValidationError

from app.graders import protocol, spec
from app.graders.chat import Endpoint
from app.graders.errors import GraderInvalid
from app.graders.evaluate import Case, Evaluator
from app.graders.protocol import Cancel, Done, Grade, Refused, Scored
from app.graders.turns import Turns

log = logging.getLogger(__name__)

_AT_ONCE = 64  # cases in work; the rest of a batch waits


class Server:
    """`send` must take whole lines; it may block while nobody reads."""

    def __init__(self, evaluator: Evaluator, send: Callable[[bytes], None]) -> None:
        self._evaluator, self._send = evaluator, send
        self._turns = Turns(_AT_ONCE)
        self._running: dict[int, asyncio.Task[None]] = {}

    async def serve(self, requests: asyncio.StreamReader) -> None:
        """Until the pipe is closed; then everything in work is dropped."""
        try:
            while line := await requests.readline():
                self._take(line)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _take(self, line: bytes) -> None:
        try:
            request = protocol.read_request(line)
        except ValidationError as error:
            log.error("a request cannot be read: %s", error.errors(include_input=False)[:1])
            return
        if isinstance(request, Cancel):
            if (task := self._running.get(request.id)) is not None:
                task.cancel()
            return
        task = asyncio.create_task(self._grade(request))
        self._running[request.id] = task
        task.add_done_callback(lambda _: self._running.pop(request.id, None))

    async def _grade(self, request: Grade) -> None:
        try:
            grader = spec.read(request.grader)
        except GraderInvalid as invalid:
            problems = [(list(problem.path), problem.message) for problem in invalid.problems]
            self._reply(Refused(id=request.id, problems=problems))
            return
        deadline = asyncio.get_running_loop().time() + request.seconds
        async with asyncio.TaskGroup() as group:
            for number in range(len(request.cases)):
                group.create_task(self._case(request, number, grader, deadline))
        self._reply(Done(id=request.id))

    async def _case(
        self, request: Grade, number: int, grader: spec.Grader, deadline: float
    ) -> None:
        endpoint = None
        if request.endpoint is not None:
            endpoint = Endpoint(request.endpoint.base_url, request.endpoint.token)
        given = request.cases[number]
        case = Case(given.item, given.whole(), request.tenant, endpoint)
        async with self._turns.turn(request.tenant):
            left = max(0.001, deadline - asyncio.get_running_loop().time())
            result = await self._evaluator.grade(grader, case, left)
        self._reply(Scored(id=request.id, case=number, result=result))

    def _reply(self, reply: protocol.Reply) -> None:
        # Who asked is gone; the end of the request pipe says so too.
        with contextlib.suppress(BrokenPipeError):
            self._send(protocol.write(reply))
