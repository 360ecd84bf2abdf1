"""Our marker in a job's suffix: a job has no metadata."""

import re

from app.providers.markers import Escapes

LONGEST_SUFFIX = 40
LONGEST_OWN_SUFFIX = 10
"""What a suffix has left beside the marker of a job that was restarted up to 99 times."""

# Nobody promises more than letters, digits and '-' in a suffix, because it becomes part of the
# model's name. After a '-' in the marker's part comes always one of these letters, so that what
# begins a marker cannot occur within one.
_ESCAPES = Escapes({"-": "-h", ".": "-d", "_": "-u"})
_TAGS = {"lt": "ftjob-", "ltu": "ftjob_", "ltm": ""}
_MARKED = re.compile(r"(?:^|-)(ltu|ltm|lt)-((?:[A-Za-z0-9]|-[hdu])+)$")


def marked_suffix(marker: str, suffix: str | None) -> str:
    """The marker, after as much of our own suffix as there is room for."""
    tag, begins = next((tag, one) for tag, one in _TAGS.items() if marker.startswith(one))
    tail = f"{tag}-{_ESCAPES.write(marker.removeprefix(begins))}"
    own = (suffix or "")[: max(0, LONGEST_SUFFIX - len(tail) - 1)].strip("-")
    return f"{own}-{tail}" if own else tail


def unmarked(suffix: str | None) -> tuple[str | None, str | None]:
    """The marker that a suffix carries, and our own suffix before it."""
    found = _MARKED.search(suffix or "")
    if not suffix or not found:
        return None, suffix or None
    return _TAGS[found[1]] + _ESCAPES.read(found[2]), suffix[: found.start()] or None
