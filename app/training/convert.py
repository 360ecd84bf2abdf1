"""Preparing the embedded base model: `python -m app.training.convert --to DIR`.

Converts the quantised GGUF file into a folder of safetensors (270 MB, bfloat16), atomically, once.
Speaks JSON lines on its standard output: progress, then done or failed.
"""

import argparse
import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.training.embedded import (
    GGUF_SHA256,
    MARKER,
    NAME,
    EmbeddedModelUnavailable,
    gguf_file,
    is_prepared,
    unavailable_reason,
)
from app.training.manifest import hash_file, sync_folder

PAD_TOKEN = "<|endoftext|>"  # noqa: S105 (a token of the vocabulary)

Say = Callable[[int, str], None]


def prepare(folder: Path, say: Say) -> None:
    """Convert once: a second process waits for the first and then finds the work done."""
    folder = folder.absolute()
    if is_prepared(folder):
        return
    if reason := unavailable_reason():
        raise EmbeddedModelUnavailable(reason)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(folder.name + ".lock"), say):
        if is_prepared(folder):
            return
        source = gguf_file()
        if source is None:
            raise EmbeddedModelUnavailable("The embedded model was removed while waiting.")
        say(5, "checking the weights")
        if hash_file(source) != GGUF_SHA256:
            raise EmbeddedModelUnavailable(
                f"{source.name} is not the file this version was tested with."
            )
        # Beside the target, so that the rename stays within one file system.
        temporary = Path(tempfile.mkdtemp(prefix=folder.name + ".part-", dir=folder.parent))
        try:
            convert(source, temporary, say)
            marker = {"name": NAME, "source": source.name, "source_sha256": GGUF_SHA256}
            (temporary / MARKER).write_text(json.dumps(marker) + "\n")
            for path in temporary.iterdir():
                path.chmod(0o644)
                hash_file(path, sync=True)
            temporary.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def convert(source: Path, to: Path, say: Say) -> None:
    """Read the quantised file into bfloat16 weights and a fast tokenizer."""
    say(10, "loading the libraries")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    say(20, "reading the tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    say(35, "reading and unpacking the weights")
    model: Any = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.bfloat16,
        # Without this the model counts as quantised and refuses to be saved.
        quantization_config=GgufConfig(dequantize=True),
    )
    # The file names the end of a turn as padding too; whoever masks padding would mask it as well.
    tokenizer.pad_token = PAD_TOKEN
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config._model_name_or_path = NAME  # the file carries the name of an internal checkpoint
    for only_here in ("name_or_path", "gguf_file", "is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(only_here, None)
    say(85, "writing the model")
    tokenizer.save_pretrained(to)
    model.save_pretrained(to)


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(1, "another process is preparing the model")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description="Prepare the embedded base model in a folder.")
    parser.add_argument("--to", type=Path, required=True)
    folder: Path = parser.parse_args().to
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print; only our lines go out

    def send(**fields: object) -> None:
        lines.write(json.dumps(fields) + "\n")

    try:
        prepare(folder, lambda percent, text: send(type="progress", percent=percent, message=text))
    except EmbeddedModelUnavailable as error:
        send(type="failed", message=str(error))
        return 1
    send(type="done", path=str(folder.absolute()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
