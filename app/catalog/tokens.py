"""Counting tokens without torch: with a base model's own tokenizer, else by an honest estimate."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from app.catalog.base_models import BaseModel, BaseModels

ESTIMATE = "estimate: 4 bytes a token"
_PER_MESSAGE = 5  # role, start and end marks of common chat templates


class Tokenizers:
    def __init__(self, base_models: BaseModels) -> None:
        self._base_models = base_models

    def default(self) -> tuple[Callable[[list[str]], int], str]:
        """A counter for datasets, which belong to no base model, and the name to report it by."""
        for model in self._base_models.all():
            if count := self.of(model):
                return count, model.name
        return _estimate, ESTIMATE

    def of(self, model: BaseModel) -> Callable[[list[str]], int] | None:
        """A counter by this model's tokenizer; None when its files are not here."""
        file = model.folder / "tokenizer.json" if model.folder else None
        if file is None or not file.is_file():
            return None
        tokenizer = _load(str(file), file.stat().st_mtime_ns)
        return lambda texts: sum(
            len(encoding) + _PER_MESSAGE for encoding in tokenizer.encode_batch_fast(texts)
        )


@lru_cache(4)
def _load(path: str, _changed: int) -> Tokenizer:
    return Tokenizer.from_file(str(Path(path)))


def _estimate(texts: list[str]) -> int:
    return sum(len(text.encode()) // 4 + _PER_MESSAGE for text in texts)
