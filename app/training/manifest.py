"""Manifests: what makes a folder of weights a checkpoint that may be trusted.

A checkpoint holds pickles, and the library writes it file by file, in place. So a manifest with
every file's hash is written last, and nothing in a folder is opened before its manifest's own
hash, which travelled through the supervisor, and all the files were compared.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from app.training.errors import TrainingFailed
from app.training.hyperparameters import Method
from app.training.report import Values
from app.training.resolve import Device, ResolvedHyperparameters

MANIFEST = "manifest.json"


class FileEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    size: int
    sha256: str


class RunEnvironment(BaseModel):
    """What must be the same again for the remaining losses to be equal to the last digit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Device
    dtype: str
    threads: int
    processes: int = 1
    versions: dict[str, str]


class Manifest(BaseModel):
    """`base_sha256` is of the base model's files (None: it came from a hub), `template_sha256` of
    its chat template, `start_sha256` of the manifest gone on from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    job_id: str
    attempt: int
    base_model_name: str
    base_sha256: str | None = None
    start_sha256: str | None = None
    method: Method
    template_sha256: str
    kind: Literal["lora", "full"]
    step: int
    epoch: float
    trained_tokens: int
    seed: int
    training_sha256: str
    validation_sha256: str | None
    resolved: ResolvedHyperparameters
    environment: RunEnvironment
    metrics: Values
    files: list[FileEntry] = []


def hash_file(path: Path, *, sync: bool = False) -> str:
    """sha256 of a file's bytes; with `sync`, of bytes that are on the disk."""
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_weights(folder: Path) -> str:
    """sha256 over all that a model is loaded from: names and bytes of its files."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt"):
            whole.update(f"{path.name}\0{hash_file(path)}\n".encode())
    return whole.hexdigest()


def seal(folder: Path, manifest: Manifest) -> tuple[str, int]:
    """Write the manifest of everything in `folder`; returns its sha256 and the size of all."""
    entries = [
        FileEntry(
            path=path.relative_to(folder).as_posix(),
            size=path.stat().st_size,
            sha256=hash_file(path, sync=True),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    ]
    content = manifest.model_copy(update={"files": entries}).model_dump(mode="json")
    # allow_nan=False: a manifest is plain JSON, also to readers that are not Python.
    data = (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    temporary = folder / (MANIFEST + ".part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / MANIFEST)
    sync_folder(folder)
    sync_folder(folder.parent)
    return hashlib.sha256(data).hexdigest(), len(data) + sum(entry.size for entry in entries)


def sync_folder(folder: Path) -> None:
    """A rename or a new file is only durable once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(folder: Path, manifest_sha256: str, param: str = "resume_from") -> Manifest:
    """The manifest of a folder whose every byte is as it was sealed, or `checkpoint_corrupt`.

    `param` is what the refusal names."""

    def corrupt(why: str) -> TrainingFailed:
        return TrainingFailed(
            "checkpoint_corrupt", f"The weights to go on from are damaged: {why}.", param
        )

    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise corrupt("it has no manifest") from error
    if hashlib.sha256(data).hexdigest() != manifest_sha256:
        raise corrupt("its manifest is not the one that was recorded")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise corrupt("its manifest cannot be read") from error
    listed = {entry.path: entry for entry in manifest.files}
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    found.pop(MANIFEST)
    # A file too many is refused as well: loaders pick up what they find by name.
    if odd := sorted(found.keys() ^ listed.keys()):
        raise corrupt(f"{odd[0]} is {'missing' if odd[0] in listed else 'not in its manifest'}")
    for name, entry in listed.items():
        file = found[name]
        if file.is_symlink() or not file.is_file():
            raise corrupt(f"{name} is not a plain file")
        if file.stat().st_size != entry.size or hash_file(file) != entry.sha256:
            raise corrupt(f"{name} has changed")
    return manifest
