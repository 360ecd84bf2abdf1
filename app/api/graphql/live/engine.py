"""The groups of this process, and who may join them."""

import asyncio
from collections.abc import Hashable
from typing import TYPE_CHECKING

from strawberry.schema import Schema

from app.accounts import keys
from app.api import authentication
from app.api.graphql.caches import Documents
from app.api.graphql.context import Context, Services
from app.api.graphql.live.execution import Execution
from app.api.graphql.live.plans import NOW, Plans, Readers
from app.api.graphql.live.pulse import Pulse
from app.api.key_watch import KeyWatch
from app.core.actor import Actor

if TYPE_CHECKING:
    from app.api.graphql.live.connection import Connection, Viewer


class Live:
    def __init__(
        self,
        services: Services,
        key_watch: KeyWatch,
        schema: Schema,
        documents: Documents,
        origins: frozenset[str] = frozenset(),
    ) -> None:
        self.services, self.key_watch, self.schema = services, key_watch, schema
        self.origins = origins
        self.settings, self.limits = services.settings, services.limits
        self.groups: dict[Hashable, Execution] = {}
        self.opening: dict[Hashable, Execution] = {}
        self.executions: set[Execution] = set()
        self.connections: set[Connection] = set()
        self.strangers = 0  # WebSockets that have not shown a key yet
        self.draining = False
        self.documents = documents
        self._plans = Plans(documents)
        self.readers = Readers()
        self.pulse = Pulse()

    def watch(self, viewer: "Viewer", seen: int | None = None) -> bool:
        """Begin a subscription, after `seen` whatever its document says; False for what is none."""
        plan = self._plans.of(viewer.request)
        if plan is None:
            return False
        viewer.key = plan.key(viewer.request, viewer.connection.actor)
        after = plan.after(viewer.request) if seen is None else seen
        group = self.groups.get(viewer.key) if viewer.key is not None else None
        if group is not None and group.open and after is not None:
            assert group.position is not None  # noqa: S101 - it has been idle
            if after == NOW:  # for this process, now is where its viewers are
                group.take(viewer, group.position)
                return True
            # A cursor that we have not seen yet may be another stream's: the resolver knows.
            if after <= group.position and group.reaches(after):
                group.take(viewer, after)
                return True
        viewer.position = seen
        opening = None
        if after == NOW and viewer.key is not None:
            # For those of one key: it may be the key's limits that refuse the first of them.
            opening = (viewer.key, viewer.connection.actor.key_id)
            if begun := self.opening.get(opening):
                begun.join(viewer)
                return True
        self._run(viewer, opening)
        return True

    def begin(self, viewer: "Viewer", position: int | None) -> None:
        """Go on with a viewer that has been told everything up to a position."""
        viewer.position = position
        group = self.groups.get(viewer.key) if viewer.key is not None else None
        if group is not None and position is not None and group.reaches(position):
            group.take(viewer, position)
        else:
            self._run(viewer)

    def _run(self, viewer: "Viewer", opening: Hashable | None = None) -> None:
        request_id = authentication.new_request_id()
        execution = Execution(self, viewer.request, viewer.key, viewer, request_id)
        if opening is not None:
            execution.opening = opening
            self.opening[opening] = execution
        context = Context(self.services, request_id, viewer.connection.actor, live=execution)
        viewer.execution = execution
        self.executions.add(execution)
        execution.task = asyncio.create_task(execution.run(context), name="live")

    def forget(self, execution: Execution) -> None:
        self.executions.discard(execution)
        self.begun(execution)
        if execution.key is not None and self.groups.get(execution.key) is execution:
            del self.groups[execution.key]

    def begun(self, execution: Execution) -> None:
        """Its beginning is found: "now" is another moment for those who come later."""
        if self.opening.get(execution.opening) is execution:
            del self.opening[execution.opening]

    def known(self, key: str) -> Actor | None:
        """Whom a key that was good a moment ago acts for."""
        return self.services.keys.get(keys.hashed(key, self.services.pepper))

    def drain(self) -> None:
        """The server stops: what would go on for ever ends."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    def stop(self) -> None:
        self.pulse.stop()
