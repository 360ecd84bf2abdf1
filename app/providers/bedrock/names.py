"""What our jobs, models and requests are called at Bedrock, which allows other signs in each."""

import hashlib
import re

_PREFIX = "luthier-"


def job_name(marker: str) -> str:
    """They allow '+', which markers never have, and not '_'."""
    return _PREFIX + marker.replace("_", "+")


def marker_of(name: str) -> str | None:
    if not name.startswith(_PREFIX):
        return None
    return name.removeprefix(_PREFIX).replace("+", "_") or None


def model_name(marker: str, suffix: str | None) -> str:
    """Single '-' and '_' between letters and digits are all they allow, in 63."""
    ours = re.sub(r"[^0-9a-zA-Z_]+", "-", marker)
    wanted = re.sub(r"[^0-9a-zA-Z]+", "-", suffix or "").strip("-")[: 62 - len(ours)].strip("-")
    return f"{wanted}-{ours}" if wanted else ours


def suffix_of(name: str, marker: str) -> str | None:
    ours = model_name(marker, None)
    return name.removesuffix(ours).strip("-") or None if name.endswith(ours) else None


def token(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
