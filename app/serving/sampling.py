"""From numbers to text for one sequence: choosing the next token, decoding, stop strings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

GREEDY = 1e-5


@dataclass(frozen=True)
class Sampling:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int = 1
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY

    @property
    def is_plain(self) -> bool:
        """True when the token is the argmax, so that a batch can be decided in one call."""
        return self.is_greedy and not (self.frequency_penalty or self.presence_penalty)


def choose(logits: Any, rule: Sampling, generator: Any, written: Sequence[int]) -> int:
    """The next token from one row of float32 logits; penalties count written tokens only, as in
    vLLM. Every row has its own generator, so its draws do not depend on who shares the batch."""
    import torch

    if written and (rule.frequency_penalty or rule.presence_penalty):
        tokens, counts = torch.tensor(written, device=logits.device).unique(return_counts=True)
        logits = logits.clone()
        logits[tokens] -= rule.frequency_penalty * counts + rule.presence_penalty
    if rule.is_greedy:
        return int(logits.argmax())
    logits = logits / rule.temperature
    if 0 < rule.top_k < logits.numel():
        floor = logits.topk(rule.top_k).values[-1]
        logits = logits.masked_fill(logits < floor, float("-inf"))
    chances = logits.softmax(-1)
    if rule.top_p < 1:
        ordered, order = chances.sort(descending=True)
        ordered[ordered.cumsum(-1) - ordered >= rule.top_p] = 0
        return int(order[ordered.multinomial(1, generator=generator)])
    return int(chances.multinomial(1, generator=generator))


class TextStream:
    """Tokens in, text out, never a half character and never a part of a stop string."""

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str]) -> None:
        self._decode = decode
        self._stop = stop
        self._ids: list[int] = []
        self._from = self._read = 0
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        self._ids.append(token)
        return self._release(self._decoded(final=False))

    def finish(self) -> str:
        """What was held back; a torn character comes out as U+FFFD."""
        text = self._release(self._decoded(final=True))
        held, self._held = self._held, ""
        return text + held

    def _decoded(self, *, final: bool) -> str:
        # A token's text depends on its neighbours (bytes of one character, leading spaces), so
        # decode a short window twice and send the difference.
        before = self._decode(self._ids[self._from : self._read])
        after = self._decode(self._ids[self._from :])
        if len(after) <= len(before) or (after.endswith("\ufffd") and not final):
            return ""
        self._from, self._read = self._read, len(self._ids)
        return after[len(before) :]

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [at for at in map(self._held.find, self._stop) if at >= 0]
        if found:
            self.stopped = True
            out, self._held = self._held[: min(found)], ""
            return out
        keep = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
