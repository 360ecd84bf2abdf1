"""Documents that were parsed and found valid once are neither parsed nor validated again.

Strawberry's own parser cache loses syntax errors on the way, and its validation cache misses as
soon as a limiter stands beside it. Here the schema asks the cache instead of the parser, and the
guard still judges each request, because variables change what a document costs.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from graphql import DocumentNode, GraphQLError, OperationDefinitionNode, parse, validate
from strawberry.extensions import SchemaExtension
from strawberry.types.graphql import OperationType

_MOST = 1_000
_MOST_CHARACTERS = 500_000  # a parsed document takes some hundred times the room of its text
_LONGEST = 20_000
_MOST_ERRORS = 20  # each costs a search for names that are near


@dataclass
class Known:
    """`sizing` are the variables that say how long a list may be, once the guard knows them;
    `costs` what the operations cost, by name and those variables' sizes."""

    document: DocumentNode
    valid: bool = False
    sizing: tuple[str, ...] | None = None
    costs: dict[tuple[Any, ...], int] = field(default_factory=dict)


class Documents:
    """Parsed documents by text; the longest unused leave first. `parsed` and `validated` count the
    times that either was done."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._characters = 0
        # The last one that was too long to keep: a request asks for its document several times.
        self._long: tuple[str, Known] | None = None
        self._failed: tuple[str, GraphQLError] | None = None
        self.parsed = self.validated = 0

    def __len__(self) -> int:
        return len(self._known)

    def get(self, text: str | None) -> Known | None:
        if not text:
            return None
        if self._long and self._long[0] == text:
            return self._long[1]
        found = self._known.get(text)
        if found is not None:
            self._known.move_to_end(text)
        return found

    def operation_type(self, text: str, name: str | None) -> OperationType | None:
        """What the named (or only) operation is; None for a text that cannot be run anyway."""
        try:
            document = self.parse(text).document
        except GraphQLError:
            return None
        for node in document.definitions:
            if isinstance(node, OperationDefinitionNode) and (
                name is None or (node.name and node.name.value == name)
            ):
                return OperationType(node.operation.value)
        return None

    def parse(self, text: str) -> Known:
        """Raises GraphQLError for what cannot be parsed: a moment later, the same one."""
        if found := self.get(text):
            return found
        if self._failed and self._failed[0] == text:
            raise self._failed[1].with_traceback(None)
        self.parsed += 1
        try:
            found = Known(parse(text, max_tokens=self._max_tokens))
        except GraphQLError as error:
            self._failed = (text, error.with_traceback(None))
            raise
        self._put(text, found)
        return found

    def _put(self, text: str, found: Known) -> None:
        if len(text) > _LONGEST:
            self._long = (text, found)
            return
        self._known[text] = found
        self._characters += len(text)
        while len(self._known) > _MOST or self._characters > _MOST_CHARACTERS:
            gone, _ = self._known.popitem(last=False)
            self._characters -= len(gone)


class CachingExtension(SchemaExtension):
    """Must come after the guard: what the guard refuses is never marked valid."""

    documents: Documents

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        known = self.documents.get(context.query)
        if known is not None and known.valid:
            context.validation_rules = ()
        elif context.graphql_document and context.pre_execution_errors is None:
            self.documents.validated += 1
            context.pre_execution_errors = validate(
                context.schema._schema,
                context.graphql_document,
                context.validation_rules,
                max_errors=_MOST_ERRORS,
            )
        yield
        if known is not None and not context.pre_execution_errors:
            known.valid = True


def cached(documents: Documents) -> type[CachingExtension]:
    """The extension over this store. Schemas that differ must not share one."""
    return type("ConfiguredCaching", (CachingExtension,), {"documents": documents})
