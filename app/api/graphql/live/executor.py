"""Events of one subscription are executed alike: what depends on the document is found out once.

graphql-core collects the fields anew for every event, and keeps what it collected for as long as
the subscription lives: the cost is that of a small query's planning, the memory grows for ever.
"""

from collections.abc import Awaitable
from typing import Any, cast

from graphql import (
    ExecutionResult,
    GraphQLError,
    GraphQLNonNull,
    GraphQLObjectType,
    OperationType,
)
from graphql.execution.collect_fields import CollectedFields, collect_fields
from graphql.execution.executor import CollectedErrors, to_nodes
from graphql.pyutils import Path

from app.api.graphql.executor import LeafExecutor, Plan, Unusual
from app.api.graphql.live.channel import Read


class EventExecutor(LeafExecutor):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # One list for the executors of all events: they are shallow copies of the first.
        self._collected: list[CollectedFields] = []
        if self.operation.operation is OperationType.SUBSCRIPTION and self.context_value:
            self.context_value.live.reader = self.reader

    def reader(self) -> Read:
        """What reads the data of an event of which nothing but leaves is asked, and raises whatever
        the general way has to explain. It outlives this executor."""
        name, plan = self._whole_event()

        def read(value: Any) -> dict[str, Any]:
            if plan is None:
                raise Unusual
            return {name: plan.result(value)}

        return read

    def execute_operation(self, serially: bool | None = None) -> Any:
        root = self.schema.subscription_type
        if self.operation.operation is not OperationType.SUBSCRIPTION or root is None:
            return super().execute_operation(serially)
        fields, defers, _ = self._fields(root)
        try:
            if len(fields) == 1:
                [(name, details)] = fields.items()
                data = self._execute_root(root, name, details)
            else:
                data = self.execute_collected_root_fields(
                    root, self.root_value, fields, False, defers
                )
            if self.is_awaitable(data):
                return self._awaited(cast("Awaitable[dict[str, Any]]", data))
        except GraphQLError as error:
            return self._failed(error)
        return self.build_response(cast("dict[str, Any]", data))

    def build_per_event_executor(self, payload: Any) -> "EventExecutor":
        executor = object.__new__(type(self))
        executor.__dict__.update(self.__dict__)
        executor.root_value = payload
        executor.collected_errors = CollectedErrors()
        return executor

    def _fields(self, root: GraphQLObjectType) -> CollectedFields:
        if not self._collected:
            self._collected.append(
                collect_fields(
                    self.schema, self.fragments, self.variable_values, root, self.operation, False
                )
            )
        return self._collected[0]

    def _whole_event(self) -> tuple[str, Plan | None]:
        root = self.schema.subscription_type
        assert root is not None  # noqa: S101 - there is a subscription
        [(name, details), *more] = self._fields(root)[0].items()
        field = self.schema.get_field(root, details[0].node.name.value)
        kind = field.type.of_type if field and isinstance(field.type, GraphQLNonNull) else None
        if more or not isinstance(kind, GraphQLObjectType):
            return name, None
        return name, self.whole_plan(kind, details)

    def _execute_root(self, root: GraphQLObjectType, name: str, details: Any) -> Any:
        """The field that an event is the value of: its arguments chose the events, long ago."""
        field = self.schema.get_field(root, details[0].node.name.value)
        if field is None:
            return {}
        path = Path(None, name, root.name)
        info = self.build_resolve_info(field, to_nodes(details), root, path)
        try:
            value = self.complete_value(field.type, details, info, path, self.root_value, None)
        except Exception as error:  # noqa: BLE001 - as graphql-core does
            self.handle_field_error(error, field.type, details, path)
            return {name: None}
        if not self.is_awaitable(value):
            return {name: value}

        async def pending() -> dict[str, Any]:
            try:
                return {name: await value}
            except Exception as error:  # noqa: BLE001 - as graphql-core does
                self.handle_field_error(error, field.type, details, path)
                return {name: None}

        return pending()

    async def _awaited(self, pending: Awaitable[dict[str, Any]]) -> Any:
        try:
            data = await pending
        except GraphQLError as error:
            return self._failed(error)
        return self.build_response(data)

    def _failed(self, error: GraphQLError) -> ExecutionResult:
        self.collected_errors.add(error, None)
        return cast("ExecutionResult", self.build_response(None))
