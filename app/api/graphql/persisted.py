"""Automatic persisted operations: a client sends a document's SHA-256, its text only when asked.

The store is this process's and holds what fits; what it forgot, a client simply sends again. A text
is kept only under its own hash, so no tenant can plant anything in another's way, and a hash says
nothing to whom the text is unknown.
"""

import hashlib
from collections import OrderedDict
from typing import Any

from app.core.errors import AppError, Invalid

_MOST = 1_000
_MOST_CHARACTERS = 4_000_000
_LONGEST = 64_000


class PersistedQueryNotFound(AppError):
    """Clients know it by these words and send the text then."""

    code = "PERSISTED_QUERY_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("PersistedQueryNotFound")


class PersistedQueryMismatch(Invalid):
    code = "PERSISTED_QUERY_HASH_MISMATCH"


class PersistedQueryUnsupported(Invalid):
    code = "PERSISTED_QUERY_NOT_SUPPORTED"


class Store:
    """Texts by hash; the longest unused leave first."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._characters = 0

    def get(self, digest: str) -> str | None:
        if digest in self._texts:
            self._texts.move_to_end(digest)
        return self._texts.get(digest)

    def put(self, digest: str, text: str) -> None:
        if len(text) > _LONGEST or digest in self._texts:
            return
        self._texts[digest] = text
        self._characters += len(text)
        while len(self._texts) > _MOST or self._characters > _MOST_CHARACTERS:
            _, gone = self._texts.popitem(last=False)
            self._characters -= len(gone)


_store = Store()


def resolve_persisted(payload: dict[str, Any]) -> str | None:
    """The document's text of a request `{query, extensions}`, whichever way it came; None when it
    names none at all. Raises PersistedQueryNotFound, or Invalid for a hash that is none."""
    query: str | None = payload.get("query")
    extensions = payload.get("extensions")
    asked = extensions.get("persistedQuery") if isinstance(extensions, dict) else None
    if asked is None:
        return query
    if not isinstance(asked, dict) or asked.get("version") != 1:
        raise PersistedQueryUnsupported("extensions.persistedQuery must be of version 1.")
    digest = asked.get("sha256Hash")
    if not isinstance(digest, str):
        raise PersistedQueryUnsupported("extensions.persistedQuery.sha256Hash must be text.")
    digest = digest.lower()
    if not query:
        if (known := _store.get(digest)) is None:
            raise PersistedQueryNotFound
        return known
    if hashlib.sha256(query.encode()).hexdigest() != digest:
        raise PersistedQueryMismatch("The given sha256Hash is not the query's.")
    _store.put(digest, query)
    return query
