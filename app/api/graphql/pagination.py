"""Connections: Relay's shape with a `nodes` shortcut, over keyset pages."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Generic, TypeVar

import strawberry

from app.api.graphql.context import Info
from app.core.paging import Page

NodeType = TypeVar("NodeType")


def arg(description: str) -> Any:
    return strawberry.argument(description=description)


First = Annotated[int | None, arg("How many, at most 200; 20 when left out.")]
After = Annotated[str | None, arg("A cursor: what comes after it.")]
Last = Annotated[int | None, arg("How many from the end, at most 200.")]
Before = Annotated[str | None, arg("A cursor: what comes before it.")]


@strawberry.type(description="Where a page lies in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether more follow.")
    has_previous_page: bool = strawberry.field(description="Whether some come before.")
    start_cursor: str | None = strawberry.field(description="The first row's cursor.")
    end_cursor: str | None = strawberry.field(description="The last row's cursor.")


@strawberry.type(description="One row of a list.")
class Edge(Generic[NodeType]):
    cursor: str = strawberry.field(description="The row's place: pass it as after or before.")
    node: NodeType = strawberry.field(description="The row.")


@strawberry.type(description="One page of a list.")
class Connection(Generic[NodeType]):
    edges: list[Edge[NodeType]] = strawberry.field(description="The rows with their cursors.")
    nodes: list[NodeType] = strawberry.field(description="The rows alone.")
    page_info: PageInfo = strawberry.field(description="Where this page lies.")
    page: strawberry.Private[Page[Any]]

    @strawberry.field(description="How many there are in all; counted only when asked for.")
    async def total_count(self, info: Info) -> int:
        async with info.context.transaction() as session:
            return int(await self.page.count(session))


class _Edges:
    """Made when asked for, as few are."""

    def __init__(self, page: Page[Any], nodes: list[Any]) -> None:
        self._page, self._nodes = page, nodes

    def __iter__(self) -> Iterator[Edge[Any]]:
        for cursor, node in zip(self._page.cursors, self._nodes, strict=True):
            yield Edge(cursor=cursor, node=node)


def connect(page: Page[Any], node: Callable[[Any], Any], kind: Any = Connection) -> Any:
    """The connection of a page, each row turned into its node."""
    nodes = [node(row) for row in page.rows]
    info = PageInfo(
        has_next_page=page.has_next,
        has_previous_page=page.has_previous,
        start_cursor=page.cursors[0] if page.cursors else None,
        end_cursor=page.cursors[-1] if page.cursors else None,
    )
    return kind(edges=_Edges(page, nodes), nodes=nodes, page_info=info, page=page)
