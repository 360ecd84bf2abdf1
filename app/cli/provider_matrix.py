"""What each provider can do, as a table in Markdown, from what the adapters say of themselves."""

import re
from pathlib import Path

from app.providers.base import Capabilities
from app.providers.registry import ADAPTERS

BEGIN, END = "<!-- capabilities -->", "<!-- /capabilities -->"
_COLUMNS = (
    "provider", "`--provider`", "tunes by", "pause, resume", "messages", "values of steps",
    "checkpoints", "webhooks", "a model is called", "a lost create",
)  # fmt: skip
_LOCAL = (
    "Luthier's own workers", "`local`", "supervised, dpo, reinforcement", "yes", "events",
    "every step, live", "yes", "not needed", "once deployed", "cannot be",
)  # fmt: skip


def matrix() -> str:
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), _LOCAL]
    rows += [_row(ADAPTERS[name].capabilities) for name in sorted(ADAPTERS)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(found: Capabilities) -> tuple[str, ...]:
    stops = {(True, True): "yes", (False, True): "resume only", (True, False): "pause only"}
    return (
        found.name,
        f"`{found.provider}`",
        ", ".join(found.methods),
        stops.get((found.pause, found.resume), "no"),
        found.messages,
        found.metrics or "none",
        "yes" if found.checkpoints else "no",
        found.webhooks or "none: polled",
        "at once" if found.deployment == "automatic" else "once deployed",
        "is sent again" if found.repeatable_create else "is looked for",
    )


def put_into(readme: Path) -> bool:
    """Renew the table between the markers; False when it was as it should be. Raises ValueError
    without markers."""
    text = readme.read_text()
    made, count = re.subn(
        f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{matrix()}\n{END}", text, flags=re.S
    )
    if count != 1:
        raise ValueError(f"{readme} must have {BEGIN} and {END}, once.")
    if made != text:
        readme.write_text(made)
    return made != text
