"""Our marker in a job's suffix, which is all that Azure OpenAI lets a job carry."""

import re

from app.providers.markers import Escapes

_LONGEST = 40
_TAG = "lt"
_ESCAPES = Escapes({"_": "_u", "-": "_d", ".": "_p"})
_MARKER = re.compile(rf"{_TAG}(_[ud][0-9A-Za-z]+(?:_[udp][0-9A-Za-z]*)*)")
_BEGINNING = "ftjob"


def marked(marker: str, suffix: str | None) -> str:
    """The marker without '-' and '.', so that it is what follows the last '-', after as much of our
    own suffix as there is room for."""
    written = _TAG + _ESCAPES.write(marker.removeprefix(_BEGINNING))
    left = max(0, _LONGEST - len(written) - 1)
    own = re.sub(r"[^0-9A-Za-z_-]", "-", suffix or "")[:left]
    return f"{own}-{written}" if own else written


def marker_in(suffix: str) -> str | None:
    found = _MARKER.fullmatch(suffix.rpartition("-")[2])
    return _BEGINNING + _ESCAPES.read(found[1]) if found else None
