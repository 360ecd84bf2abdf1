"""What a subscription says about its stream to whoever runs it.

A subscription that says nothing is run for each viewer by itself. One that calls `idle` opts into
sharing: its results must then depend on nothing but the document, the variables, and the
organization, project, role and scopes of the key.
"""

from collections.abc import Callable, Iterable
from typing import Any

Results = Iterable[tuple[int, int, Any]]
"""Each with the first and the last entry of the stream that it tells of."""

Read = Callable[[Any], dict[str, Any]]
"""The data of a result of which nothing but leaves is asked. Raises for any other."""


class Channel:
    """Deaf: for whoever runs a subscription for one viewer only."""

    start: int | None = None
    """Where to begin, whatever `after` says: a viewer goes on from where it was."""

    reader: Callable[[], Read] | None = None
    """What finds out how the subscription's results are read."""

    def begin(self, position: int) -> None:
        """The stream begins after this position."""

    def covers(self, first: int | None, last: int | None = None) -> None:
        """The next result tells of these entries of the stream; of none, but the time: None."""

    def idle(self, position: int, *, at_once: bool = True) -> bool:
        """All that the stream holds up to here has been told, and it has no more right now.

        True: the viewers were handed to another execution, so this one ends. With `at_once`
        others may join here without having been told anything first.
        """
        return False

    def tell(self, results: Results, position: int) -> Callable[[], int] | None:
        """What tells, at once and past the subscription, what the stream holds up to a position,
        after `idle`, and returns how far it got; None where something has to be waited for."""
        return None
