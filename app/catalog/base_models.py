"""The base models: the embedded one, folders that the settings allow, hub names."""

import json
import struct
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.catalog.errors import BaseModelUnknown
from app.core.settings import Settings
from app.training import embedded

LOCAL = "local"
METHODS = ("supervised", "dpo", "reinforcement")  # what our own training takes


@dataclass(frozen=True)
class BaseModel:
    """`location` is a folder, or a hub name. `parameter_count` and `max_sequence_length` are None
    for hub models, whose files are not here before their first job. `ends` is when its provider
    shuts it down, if known."""

    name: str
    provider: str
    location: str
    description: str
    license: str | None
    parameter_count: int | None
    max_sequence_length: int | None
    methods: tuple[str, ...] = METHODS
    tasks: tuple[str, ...] = ("text-generation",)
    ends: date | None = None

    @property
    def id(self) -> str:
        return f"base_{self.provider}.{self.name}"

    @property
    def folder(self) -> Path | None:
        path = Path(self.location)
        return path if path.is_dir() else None


class BaseModels:
    def __init__(self, settings: Settings) -> None:
        self._roots = [root.expanduser().resolve() for root in settings.model_roots]
        self._allow_hub = settings.allow_hub
        self.embedded_folder = settings.data_dir.resolve() / "models" / "base" / embedded.NAME

    def all(self) -> list[BaseModel]:
        return [self._embedded(), *(_from_folder(folder) for folder in self._folders())]

    def get(self, name: str) -> BaseModel:
        """Raises BaseModelUnknown, naming what there is."""
        listed = self.all()
        for model in listed:
            if model.name == name:
                return model
        if self._allow_hub and _is_hub_name(name):
            return BaseModel(name, LOCAL, name, "A model of the hub.", None, None, None)
        available = [model.name for model in listed]
        raise BaseModelUnknown(
            f"There is no base model {name[:80]!r} here. Available: {', '.join(available)}.",
            path=("baseModel",),
            available=available,
        )

    def _embedded(self) -> BaseModel:
        return BaseModel(
            name=embedded.NAME,
            provider=LOCAL,
            location=str(self.embedded_folder),
            description=(
                "A small chat model that comes with Luthier, so that everything can be tried on a "
                "laptop without an account or a download."
            ),
            license="Apache-2.0",
            parameter_count=134_515_008,
            max_sequence_length=8192,
        )

    def _folders(self) -> list[Path]:
        found = []
        for root in self._roots:
            candidates = [root, *sorted(root.iterdir())] if root.is_dir() else []
            found += [folder for folder in candidates if (folder / "config.json").is_file()]
        return found


def _from_folder(folder: Path) -> BaseModel:
    config = _read_config(folder)
    return BaseModel(
        name=folder.name,
        provider=LOCAL,
        location=str(folder),
        description="A model folder on this machine.",
        license=None,
        parameter_count=_count_parameters(str(folder)),
        max_sequence_length=config.get("max_position_embeddings"),
    )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


@lru_cache(256)
def _count_parameters(folder: str) -> int | None:
    """Read from the headers of the safetensors files: 8 bytes of length, then JSON with shapes."""
    total = 0
    try:
        for file in Path(folder).glob("*.safetensors"):
            with file.open("rb") as content:
                (length,) = struct.unpack("<Q", content.read(8))
                header = json.loads(content.read(length))
            for name, tensor in header.items():
                if name != "__metadata__":
                    size = 1
                    for dimension in tensor["shape"]:
                        size *= dimension
                    total += size
    except (OSError, ValueError, struct.error):
        return None
    return total or None


def _is_hub_name(name: str) -> bool:
    owner, slash, model = name.partition("/")
    return bool(slash and owner and model and "/" not in model and ".." not in name)
