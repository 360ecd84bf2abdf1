"""What is no subscription, over a transport that streams: one result, and the end."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import orjson
from graphql import GraphQLError
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError

from app.api import authentication
from app.api.graphql.answers import TookTooLong, payload_of
from app.api.graphql.context import Context
from app.api.graphql.errors import present
from app.api.graphql.live.connection import Viewer


async def answer(viewer: Viewer) -> None:
    """Run a query or a mutation, or say what is wrong with a document that is neither."""
    connection, asked = viewer.connection, viewer.request
    request_id = authentication.new_request_id()
    services = connection.live.services
    actor = replace(connection.actor, request_id=request_id)
    seconds = services.settings.graphql_seconds
    try:
        async with asyncio.timeout(seconds):
            results = await connection.live.schema.stream(
                asked.query,
                variable_values=asked.variables,
                context_value=Context(services, request_id, actor),
                operation_name=asked.operation_name,
            )
            async with aclosing(results):
                async for result in results:
                    if isinstance(result, PreExecutionError):
                        viewer.refuse([error.formatted for error in result.errors or ()])
                        return
                    assert isinstance(result, ExecutionResult)  # noqa: S101 - @defer is off
                    payload = orjson.dumps(payload_of(result), option=orjson.OPT_NON_STR_KEYS)
                    connection.tell(viewer, payload)
        viewer.complete()
    except Exception as trouble:  # noqa: BLE001 - whatever it is, the client is told
        if isinstance(trouble, TimeoutError):
            trouble = TookTooLong(seconds)
        shown = present(GraphQLError(str(trouble), original_error=trouble), request_id)
        viewer.refuse([shown.formatted])
