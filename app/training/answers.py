"""What the model in training answers, asked on the way: nothing of the training changes by it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from trl.trainer.utils import pad

from app.training.resolve import Device
from app.training.trainer import own_randomness

# Prompts and answers that go through the model together: without gradients more of them fit than
# in a training step.
TOKENS_TOGETHER: dict[Device, int] = {"cpu": 4096, "cuda": 65_536}
MOST_TOGETHER: dict[Device, int] = {"cpu": 16, "cuda": 64}


class CutShort(Exception):
    """It was not allowed to go on."""


@dataclass(frozen=True)
class Asking:
    """How to ask. At temperature 0 the likeliest token is taken."""

    samples: int
    max_tokens: int
    temperature: float
    seed: int
    device: Device


def answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    asking: Asking,
    may_go_on: Callable[[], bool],
) -> list[str]:
    """So many samples of each prompt, the first prompt's first. Raises CutShort."""
    together = TOKENS_TOGETHER[asking.device] // (max(map(len, prompts)) + asking.max_tokens)
    together = max(1, min(together, MOST_TOGETHER[asking.device]) // asking.samples)
    said: list[str] = []
    was_training = model.training
    model.eval()
    try:
        # Seeded alike at every checkpoint: they differ by their weights alone.
        with torch.no_grad(), own_randomness(asking.seed):
            for at in range(0, len(prompts), together):
                batch = prompts[at : at + together]
                said += _answer(model, tokenizer, batch, asking, may_go_on)
                if not may_go_on():
                    raise CutShort
    finally:
        model.train(was_training)
    return said


def _answer(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    asking: Asking,
    may_go_on: Callable[[], bool],
) -> list[str]:
    rows = [torch.tensor(ids, device=model.device) for ids in prompts]
    ids = pad(rows, tokenizer.pad_token_id, "left")
    written = model.generate(
        input_ids=ids,
        attention_mask=pad([torch.ones_like(row) for row in rows], 0, "left"),
        generation_config=_rule(model, tokenizer, asking),
        stopping_criteria=StoppingCriteriaList([_Allowed(may_go_on)]),
    )
    said: list[str] = tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)
    return said


def _rule(model: Any, tokenizer: Any, asking: Asking) -> GenerationConfig:
    """All of it spelt out: what is not would be taken from the base model's own defaults."""
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return GenerationConfig(
        max_new_tokens=asking.max_tokens,
        do_sample=asking.temperature > 0,
        temperature=asking.temperature or 1.0,
        top_p=1.0,
        top_k=0 if asking.temperature else 50,
        repetition_penalty=1.0,
        num_return_sequences=asking.samples,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=sorted({end for end in (*ends, tokenizer.eos_token_id) if end is not None}),
        use_cache=True,
    )


class _Allowed(StoppingCriteria):  # type: ignore[misc]  # the library is untyped here
    """Asked before each further token."""

    def __init__(self, may_go_on: Callable[[], bool]) -> None:
        self._may_go_on = may_go_on

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        over = not self._may_go_on()
        return torch.full((input_ids.shape[0],), over, device=input_ids.device)
